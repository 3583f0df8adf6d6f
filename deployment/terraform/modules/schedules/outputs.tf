output "jobs" {
  description = "Names of the Cloud Run jobs by schedule."
  value       = { for name, job in google_cloud_run_v2_job.job : name => job.name }
}

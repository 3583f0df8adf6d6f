output "service_account" {
  description = "Account of the cluster's nodes."
  value       = google_service_account.ray.email
}

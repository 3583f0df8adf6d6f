output "services" {
  description = "Services that are enabled."
  value       = sort([for service in google_project_service.service : service.service])
}

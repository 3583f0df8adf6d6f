output "url" {
  description = "Where images are: LOCATION-docker.pkg.dev/PROJECT/NAME."
  value       = "${var.location}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

output "cache_url" {
  description = "Where cached layers are."
  value       = "${var.location}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.cache.repository_id}"
}

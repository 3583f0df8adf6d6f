output "name" {
  description = "Name of the bucket."
  value       = google_storage_bucket.this.name
}

output "url" {
  description = "The bucket as gs://NAME."
  value       = "gs://${google_storage_bucket.this.name}"
}

output "id" {
  description = "Id of the network; known once it is peered."
  value       = google_compute_network.this.id
  depends_on  = [google_service_networking_connection.peering]
}

output "subnet" {
  description = "Id of the subnet."
  value       = google_compute_subnetwork.this.id
}

output "peered_name" {
  description = "The network as Vertex AI names it: projects/NUMBER/global/networks/NAME."
  value       = "projects/${var.project_number}/global/networks/${google_compute_network.this.name}"
  depends_on  = [google_service_networking_connection.peering]
}

output "range_names" {
  description = "Names of the ranges kept for Google's services."
  value       = { for key, range in google_compute_global_address.peering : key => range.name }
}

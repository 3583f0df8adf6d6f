# The google provider has no resource for a Ray cluster on Vertex AI; README.md has the call.
resource "google_service_account" "ray" {
  project      = var.project
  account_id   = "${var.name}-ray"
  display_name = "Tamis: ray"
  description  = "Runs the nodes of a Ray cluster on Vertex AI."
}

resource "google_project_iam_member" "logs" {
  project = var.project
  role    = "roles/logging.logWriter"
  member  = google_service_account.ray.member
}

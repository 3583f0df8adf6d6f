locals {
  services = toset(concat(
    [
      "aiplatform.googleapis.com",
      "artifactregistry.googleapis.com",
      "cloudbuild.googleapis.com",
      "cloudresourcemanager.googleapis.com",
      "cloudscheduler.googleapis.com",
      "compute.googleapis.com",
      "iam.googleapis.com",
      "iamcredentials.googleapis.com",
      "logging.googleapis.com",
      "run.googleapis.com",
      "secretmanager.googleapis.com",
      "servicenetworking.googleapis.com",
      "sqladmin.googleapis.com",
      "storage.googleapis.com",
      "sts.googleapis.com",
    ],
    var.image_scanning ? ["containerscanning.googleapis.com"] : [],
  ))
}

resource "google_project_service" "service" {
  for_each = local.services

  project = var.project
  service = each.value
  # Others in the project may use a service as well.
  disable_on_destroy = false
}

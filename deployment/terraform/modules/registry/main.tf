# A version, once pushed, is what it is: immutable tags. Delete an old version by hand.
resource "google_artifact_registry_repository" "images" {
  project       = var.project
  location      = var.location
  repository_id = var.name
  description   = "Images of the steps and of the MLflow server."
  format        = "DOCKER"
  labels        = var.labels

  docker_config {
    immutable_tags = true
  }

  cleanup_policies {
    id     = "delete-untagged"
    action = "DELETE"

    condition {
      tag_state  = "UNTAGGED"
      older_than = "${var.untagged_days * 86400}s"
    }
  }

  vulnerability_scanning_config {
    enablement_config = var.scanning ? "INHERITED" : "DISABLED"
  }
}

# Layers for the next build overwrite one tag, which immutable tags would refuse.
resource "google_artifact_registry_repository" "cache" {
  project       = var.project
  location      = var.location
  repository_id = "${var.name}-cache"
  description   = "Layers that builds share; nothing runs from here."
  format        = "DOCKER"
  labels        = var.labels

  cleanup_policies {
    id     = "delete-old"
    action = "DELETE"

    condition {
      older_than = "${var.cache_days * 86400}s"
    }
  }

  vulnerability_scanning_config {
    enablement_config = "DISABLED"
  }
}

resource "google_artifact_registry_repository_iam_member" "reader" {
  for_each = var.readers

  project    = var.project
  location   = var.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.reader"
  member     = each.value
}

resource "google_artifact_registry_repository_iam_member" "writer" {
  for_each = var.writers

  project    = var.project
  location   = var.location
  repository = google_artifact_registry_repository.images.name
  role       = "roles/artifactregistry.writer"
  member     = each.value
}

resource "google_artifact_registry_repository_iam_member" "cache_writer" {
  for_each = var.writers

  project    = var.project
  location   = var.location
  repository = google_artifact_registry_repository.cache.name
  role       = "roles/artifactregistry.writer"
  member     = each.value
}

locals {
  grants = merge([
    for name, secret in var.secrets : {
      for reader, member in secret.readers : "${name}/${reader}" => { name = name, member = member }
    }
  ]...)
}

resource "google_secret_manager_secret" "secret" {
  for_each = var.secrets

  project   = var.project
  secret_id = each.key
  labels    = var.labels

  replication {
    auto {}
  }
}

resource "google_secret_manager_secret_version" "value" {
  for_each = var.filled

  secret      = google_secret_manager_secret.secret[each.key].id
  secret_data = var.values[each.key]
}

resource "google_secret_manager_secret_iam_member" "reader" {
  for_each = local.grants

  project   = var.project
  secret_id = google_secret_manager_secret.secret[each.value.name].secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = each.value.member
}

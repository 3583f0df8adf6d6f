locals {
  # Databases by name, and whose they are.
  databases = {
    zenml       = "zenml"
    mlflow      = "mlflow"
    mlflow_auth = "mlflow"
  }
}

resource "random_password" "database" {
  for_each = toset(["root", "zenml", "mlflow"])

  length = 32
  # It stands in a URL.
  special = false
}

resource "google_sql_database_instance" "this" {
  project             = var.project
  region              = var.region
  name                = "${var.name}-servers"
  database_version    = var.database_version
  root_password       = random_password.database["root"].result
  deletion_protection = var.deletion_protection

  settings {
    tier                        = var.database_tier
    edition                     = "ENTERPRISE"
    availability_type           = var.database_available ? "REGIONAL" : "ZONAL"
    disk_type                   = "PD_SSD"
    disk_size                   = 20
    disk_autoresize             = true
    disk_autoresize_limit       = 200
    deletion_protection_enabled = var.deletion_protection
    user_labels                 = var.labels

    ip_configuration {
      ipv4_enabled    = false
      private_network = var.network
      ssl_mode        = "ENCRYPTED_ONLY"
    }

    backup_configuration {
      enabled                        = true
      binary_log_enabled             = true
      start_time                     = "03:00"
      transaction_log_retention_days = 7

      backup_retention_settings {
        retained_backups = 14
      }
    }

    maintenance_window {
      day          = 7
      hour         = 4
      update_track = "stable"
    }

    database_flags {
      name  = "local_infile"
      value = "off"
    }
  }
}

resource "google_sql_database" "database" {
  for_each = local.databases

  project   = var.project
  instance  = google_sql_database_instance.this.name
  name      = each.key
  charset   = "utf8mb4"
  collation = "utf8mb4_general_ci"
}

resource "google_sql_user" "user" {
  for_each = toset(values(local.databases))

  project  = var.project
  instance = google_sql_database_instance.this.name
  name     = each.value
  host     = "%"
  password = random_password.database[each.value].result
}

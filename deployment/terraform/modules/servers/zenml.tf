resource "google_cloud_run_v2_service" "zenml" {
  project             = var.project
  location            = var.region
  name                = "${var.name}-zenml"
  labels              = var.labels
  ingress             = local.ingress
  deletion_protection = var.deletion_protection
  # ZenML's own login uses the header that Cloud Run's would take; it lets nobody in without one.
  invoker_iam_disabled = true

  template {
    service_account  = var.zenml_service_account
    session_affinity = true
    timeout          = "300s"

    scaling {
      min_instance_count = 1
      max_instance_count = var.max_instances
    }

    containers {
      image = var.zenml_image

      ports {
        container_port = 8080
      }

      resources {
        limits = { cpu = "1", memory = "2Gi" }
        # The server works between requests too.
        cpu_idle          = false
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = {
          ZENML_ANALYTICS_OPT_IN             = "false"
          ZENML_DEFAULT_USER_NAME            = var.administrator
          ZENML_SECRETS_STORE_TYPE           = "sql"
          ZENML_SERVER_AUTO_ACTIVATE         = "true"
          ZENML_SERVER_DEPLOYMENT_TYPE       = "gcp"
          ZENML_STORE_SSL                    = "true"
          ZENML_STORE_SSL_CA                 = "/secrets/database/ca.pem"
          ZENML_STORE_SSL_VERIFY_SERVER_CERT = "false"
        }
        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = {
          ZENML_STORE_URL                    = "${var.name}-zenml-store-url"
          ZENML_DEFAULT_USER_PASSWORD        = "${var.name}-zenml-admin-password"
          ZENML_SERVER_JWT_SECRET_KEY        = "${var.name}-zenml-jwt-key"
          ZENML_SECRETS_STORE_ENCRYPTION_KEY = "${var.name}-zenml-encryption-key"
        }
        content {
          name = env.key
          value_source {
            secret_key_ref {
              secret  = module.secrets.names[env.value]
              version = "latest"
            }
          }
        }
      }

      volume_mounts {
        name       = "database"
        mount_path = "/secrets/database"
      }

      # The first start migrates the database.
      startup_probe {
        period_seconds    = 10
        timeout_seconds   = 5
        failure_threshold = 30
        http_get {
          path = "/ready"
        }
      }

      liveness_probe {
        period_seconds    = 60
        timeout_seconds   = 10
        failure_threshold = 3
        http_get {
          path = "/health"
        }
      }
    }

    volumes {
      name = "database"
      secret {
        secret = module.secrets.names["${var.name}-database-ca"]
        items {
          path    = "ca.pem"
          version = "latest"
        }
      }
    }

    vpc_access {
      egress = "PRIVATE_RANGES_ONLY"
      network_interfaces {
        network    = var.network
        subnetwork = var.subnet
      }
    }
  }

  # Readers and values of the secrets too, not only their names.
  depends_on = [module.secrets, google_sql_database.database, google_sql_user.user]
}

locals {
  ingress = var.public ? "INGRESS_TRAFFIC_ALL" : "INGRESS_TRAFFIC_INTERNAL_ONLY"
}

resource "google_cloud_run_v2_service" "mlflow" {
  project             = var.project
  location            = var.region
  name                = "${var.name}-mlflow"
  labels              = var.labels
  ingress             = local.ingress
  deletion_protection = var.deletion_protection
  # Basic authentication uses the header that Cloud Run's login would take.
  invoker_iam_disabled = true

  template {
    service_account = var.mlflow_service_account
    timeout         = "900s"

    scaling {
      min_instance_count = 1
      max_instance_count = var.max_instances
    }

    containers {
      image   = var.mlflow_image
      command = ["mlflow"]
      args = [
        "server",
        "--host=0.0.0.0",
        "--port=8080",
        "--workers=2",
        "--app-name=basic-auth",
        "--serve-artifacts",
        "--artifacts-destination=${var.mlflow_bucket}/mlflow",
        "--allowed-hosts=*.run.app",
        "--cors-allowed-origins=https://${var.name}-mlflow-*.run.app",
      ]

      ports {
        container_port = 8080
      }

      resources {
        limits            = { cpu = "1", memory = "2Gi" }
        cpu_idle          = true
        startup_cpu_boost = true
      }

      env {
        name  = "MLFLOW_AUTH_CONFIG_PATH"
        value = "/secrets/login/login.ini"
      }

      dynamic "env" {
        for_each = {
          MLFLOW_BACKEND_STORE_URI       = "${var.name}-mlflow-store-uri"
          MLFLOW_FLASK_SERVER_SECRET_KEY = "${var.name}-mlflow-flask-key"
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

      volume_mounts {
        name       = "login"
        mount_path = "/secrets/login"
      }

      startup_probe {
        period_seconds    = 10
        timeout_seconds   = 5
        failure_threshold = 30
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

    volumes {
      name = "login"
      secret {
        secret = module.secrets.names["${var.name}-mlflow-login"]
        items {
          path    = "login.ini"
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

  depends_on = [module.secrets, google_sql_database.database, google_sql_user.user]
}

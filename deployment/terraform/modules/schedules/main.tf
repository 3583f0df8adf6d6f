resource "google_cloud_run_v2_job" "job" {
  for_each = var.schedules

  project             = var.project
  location            = var.region
  name                = "${var.name}-${each.key}"
  labels              = var.labels
  deletion_protection = var.deletion_protection

  template {
    task_count = 1

    template {
      service_account = var.runner_service_account
      timeout         = "86400s"
      max_retries     = 1

      containers {
        image       = var.image
        command     = ["python"]
        args        = concat(["run.py", each.value.verb], each.value.args)
        working_dir = "/mnt/bucket/${var.code}"

        resources {
          limits = { cpu = "2", memory = "4Gi" }
        }

        env {
          name  = "ZENML_STORE_URL"
          value = var.zenml_server
        }

        env {
          name = "ZENML_STORE_API_KEY"
          value_source {
            secret_key_ref {
              secret  = var.zenml_api_key
              version = "latest"
            }
          }
        }

        volume_mounts {
          name       = "bucket"
          mount_path = "/mnt/bucket"
        }
      }

      volumes {
        name = "bucket"
        gcs {
          bucket    = var.bucket
          read_only = true
        }
      }

      vpc_access {
        # A server that takes requests from the network only sees one of it if all traffic goes there.
        egress = var.private_servers ? "ALL_TRAFFIC" : "PRIVATE_RANGES_ONLY"
        network_interfaces {
          subnetwork = var.subnet
        }
      }
    }
  }
}

resource "google_cloud_run_v2_job_iam_member" "scheduler" {
  for_each = var.schedules

  project  = var.project
  location = var.region
  name     = google_cloud_run_v2_job.job[each.key].name
  role     = "roles/run.invoker"
  member   = "serviceAccount:${var.scheduler_service_account}"
}

resource "google_cloud_scheduler_job" "schedule" {
  for_each = var.schedules

  project          = var.project
  region           = var.region
  name             = "${var.name}-${each.key}"
  description      = "run.py ${each.value.verb}"
  schedule         = each.value.cron
  time_zone        = each.value.time_zone
  paused           = each.value.paused
  attempt_deadline = "320s"

  retry_config {
    retry_count = 3
  }

  http_target {
    http_method = "POST"
    uri         = "https://run.googleapis.com/v2/projects/${var.project}/locations/${var.region}/jobs/${google_cloud_run_v2_job.job[each.key].name}:run"

    oauth_token {
      service_account_email = var.scheduler_service_account
    }
  }

  depends_on = [google_cloud_run_v2_job_iam_member.scheduler]
}

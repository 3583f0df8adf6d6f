output "zenml_url" {
  description = "Where the ZenML server is."
  value       = google_cloud_run_v2_service.zenml.uri
}

output "mlflow_url" {
  description = "Where the MLflow server is."
  value       = google_cloud_run_v2_service.mlflow.uri
}

output "admin_logins" {
  description = "User name of the administrator, and by server the name of the secret with the password."
  value = {
    user   = var.administrator
    zenml  = module.secrets.names["${var.name}-zenml-admin-password"]
    mlflow = module.secrets.names["${var.name}-mlflow-admin-password"]
  }
}

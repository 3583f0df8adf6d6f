output "steps" {
  description = "Account that runs the steps."
  value       = google_service_account.account["steps"].email
}

output "submit" {
  description = "Account that submits runs."
  value       = google_service_account.account["submit"].email
}

output "build" {
  description = "Account that builds the images."
  value       = google_service_account.account["build"].email
}

output "scheduler" {
  description = "Account that starts the scheduled jobs."
  value       = google_service_account.account["scheduler"].email
}

output "zenml" {
  description = "Account of the ZenML server."
  value       = google_service_account.account["zenml"].email
}

output "mlflow" {
  description = "Account of the MLflow server."
  value       = google_service_account.account["mlflow"].email
}

output "github_provider" {
  description = "Name of the workload identity provider for GitHub Actions; null without a repository."
  value       = one([for provider in google_iam_workload_identity_pool_provider.github : provider.name])
}

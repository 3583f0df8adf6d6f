locals {
  accounts = {
    steps     = "Runs the steps of pipelines."
    submit    = "Submits, watches and stops runs; for people and CI."
    build     = "Builds the images."
    scheduler = "Starts the scheduled jobs."
    zenml     = "Runs the ZenML server."
    mlflow    = "Runs the MLflow server."
  }

  # What has to be granted on the project: these services have no narrower place for it.
  # Buckets, repositories, secrets and jobs grant theirs themselves.
  project_roles = {
    steps  = ["roles/aiplatform.user", "roles/logging.logWriter"]
    submit = ["roles/aiplatform.user", "roles/logging.viewer"]
    build  = ["roles/logging.logWriter"]
  }
  project_grants = merge([
    for account, roles in local.project_roles : {
      for role in roles : "${account}/${role}" => { account = account, role = role }
    }
  ]...)

  github = var.github_repository == null ? toset([]) : toset([var.github_repository])
}

resource "google_service_account" "account" {
  for_each = local.accounts

  project      = var.project
  account_id   = "${var.name}-${each.key}"
  display_name = "Tamis: ${each.key}"
  description  = each.value
}

resource "google_project_iam_member" "grant" {
  for_each = local.project_grants

  project = var.project
  role    = each.value.role
  member  = google_service_account.account[each.value.account].member
}

# A job names the account that it runs as, and who submits it must be allowed to act as that one.
# The steps are among them: a GPU step is a custom job that its pipeline submits.
resource "google_service_account_iam_member" "acts_as_steps" {
  for_each = toset(["submit", "steps"])

  service_account_id = google_service_account.account["steps"].name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.account[each.value].member
}

resource "google_service_account_iam_member" "submitter" {
  for_each = var.submitters

  service_account_id = google_service_account.account["submit"].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = each.value
}

resource "google_iam_workload_identity_pool" "github" {
  for_each = local.github

  project                   = var.project
  workload_identity_pool_id = "${var.name}-github"
  display_name              = "Tamis: GitHub"
}

resource "google_iam_workload_identity_pool_provider" "github" {
  for_each = local.github

  project                            = var.project
  workload_identity_pool_id          = google_iam_workload_identity_pool.github[each.key].workload_identity_pool_id
  workload_identity_pool_provider_id = "github"
  display_name                       = "GitHub Actions"
  attribute_mapping = {
    "google.subject"       = "assertion.sub"
    "attribute.repository" = "assertion.repository"
    "attribute.ref"        = "assertion.ref"
  }
  # Without a condition every repository of GitHub could ask for a token.
  attribute_condition = "assertion.repository == '${each.value}' && assertion.ref == 'refs/heads/main'"

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

resource "google_service_account_iam_member" "github" {
  for_each = local.github

  service_account_id = google_service_account.account["submit"].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.github[each.key].name}/attribute.repository/${each.value}"
}

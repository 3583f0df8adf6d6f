data "google_project" "this" {
  project_id = var.project
}

locals {
  labels   = merge(var.labels, { app = var.name })
  bucket   = coalesce(var.bucket, "${var.project}-${var.name}")
  registry = module.registry.url

  zenml_server  = var.servers ? one(module.servers[*].zenml_url) : var.zenml_server
  mlflow_server = var.servers ? one(module.servers[*].mlflow_url) : var.mlflow_server

  # The keys are those of configs/stacks/vertex.yaml and no other: the file is strict.
  vertex_stack = {
    kind            = "vertex"
    project         = var.project
    region          = var.region
    bucket          = module.bucket.url
    registry        = local.registry
    image           = "${local.registry}/steps:${var.image_version}-cpu"
    gpu_image       = "${local.registry}/steps:${var.image_version}-gpu"
    service_account = module.identities.steps
    zenml_server    = local.zenml_server
    mlflow          = { tracking_uri = local.mlflow_server, secret = var.mlflow_secret }
    network         = var.vertex_peering ? module.network.peered_name : null
    labels          = var.labels
    machines        = var.machines
    steps           = var.steps
    retries         = var.retries
  }
}

module "apis" {
  source = "./modules/apis"

  project        = var.project
  image_scanning = var.image_scanning
}

module "identities" {
  source = "./modules/identities"

  project           = var.project
  name              = var.name
  submitters        = var.submitters
  github_repository = var.github_repository

  depends_on = [module.apis]
}

module "network" {
  source = "./modules/network"

  project        = var.project
  project_number = data.google_project.this.number
  region         = var.region
  name           = var.name
  subnet_range   = var.subnet_range
  peering_ranges = merge({ services = 20 }, var.ray ? { ray = 20 } : {})

  depends_on = [module.apis]
}

module "bucket" {
  source = "./modules/bucket"

  project  = var.project
  location = var.region
  name     = local.bucket
  labels   = local.labels
  # A schedule keeps using the code that was uploaded when it was made.
  expiry_days = { "code_uploads/" = 365, "vertex_pipeline_root/" = 30, "builds/" = 30 }
  members = merge(
    {
      steps  = { role = "roles/storage.objectUser", member = "serviceAccount:${module.identities.steps}" }
      submit = { role = "roles/storage.objectUser", member = "serviceAccount:${module.identities.submit}" }
      zenml  = { role = "roles/storage.objectViewer", member = "serviceAccount:${module.identities.zenml}" }
      build  = { role = "roles/storage.objectViewer", member = "serviceAccount:${module.identities.build}", prefix = "builds/" }
    },
    var.ray ? { ray = { role = "roles/storage.objectUser", member = "serviceAccount:${one(module.ray[*].service_account)}" } } : {},
  )
}

# A bucket of its own, so that the MLflow server never sees a corpus.
module "mlflow_bucket" {
  source = "./modules/bucket"

  project     = var.project
  location    = var.region
  name        = "${local.bucket}-mlflow"
  labels      = local.labels
  expiry_days = {}
  members = {
    mlflow = { role = "roles/storage.objectUser", member = "serviceAccount:${module.identities.mlflow}" }
  }
}

module "registry" {
  source = "./modules/registry"

  project  = var.project
  location = var.region
  name     = var.name
  labels   = local.labels
  scanning = var.image_scanning
  writers  = { build = "serviceAccount:${module.identities.build}" }
  readers = merge(
    {
      steps  = "serviceAccount:${module.identities.steps}"
      submit = "serviceAccount:${module.identities.submit}"
      mlflow = "serviceAccount:${module.identities.mlflow}"
    },
    var.ray ? { ray = "serviceAccount:${one(module.ray[*].service_account)}" } : {},
  )

  depends_on = [module.apis]
}

module "servers" {
  source = "./modules/servers"
  count  = var.servers ? 1 : 0

  project                = var.project
  region                 = var.region
  name                   = var.name
  labels                 = local.labels
  network                = module.network.id
  subnet                 = module.network.subnet
  zenml_image            = "docker.io/zenmldocker/zenml-server:${var.zenml_version}"
  mlflow_image           = "${local.registry}/mlflow:${var.image_version}"
  mlflow_bucket          = module.mlflow_bucket.url
  zenml_service_account  = module.identities.zenml
  mlflow_service_account = module.identities.mlflow
  public                 = var.public_servers
  database_tier          = var.database_tier
  database_available     = var.database_available
  deletion_protection    = var.deletion_protection

  # A database with a private address only can be made once the network is peered.
  depends_on = [module.network]
}

# The value is put in by hand: an API key of ZenML can only be made by a ZenML server that runs.
module "given_secrets" {
  source = "./modules/secrets"

  project = var.project
  labels  = local.labels
  secrets = {
    "${var.name}-zenml-api-key" = { readers = { submit = "serviceAccount:${module.identities.submit}" } }
  }

  depends_on = [module.apis]
}

module "schedules" {
  source = "./modules/schedules"

  project                   = var.project
  region                    = var.region
  name                      = var.name
  labels                    = local.labels
  schedules                 = var.schedules
  image                     = local.vertex_stack.image
  bucket                    = module.bucket.name
  code                      = "releases/${var.image_version}"
  zenml_server              = local.zenml_server
  zenml_api_key             = module.given_secrets.names["${var.name}-zenml-api-key"]
  subnet                    = module.network.subnet
  private_servers           = var.servers && !var.public_servers
  runner_service_account    = module.identities.submit
  scheduler_service_account = module.identities.scheduler
  deletion_protection       = var.deletion_protection
}

module "ray" {
  source = "./modules/ray"
  count  = var.ray ? 1 : 0

  project = var.project
  name    = var.name

  depends_on = [module.apis]
}

check "steps_reach_the_servers" {
  assert {
    condition     = !var.servers || var.public_servers || var.vertex_peering
    error_message = "The servers take requests from the network only, and jobs run outside it: set public_servers or vertex_peering."
  }
}

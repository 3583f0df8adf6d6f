output "vertex_stack" {
  description = "The file configs/stacks/vertex.yaml: terraform output -raw vertex_stack > configs/stacks/vertex.yaml"
  value       = yamlencode(local.vertex_stack)
}

output "cloud_build" {
  description = "Substitutions of deployment/images/cloudbuild.yaml."
  value = {
    _REGISTRY = local.registry
    _CACHE    = module.registry.cache_url
    _BUILDER  = module.identities.build
    _VERSION  = var.image_version
  }
}

output "submit_service_account" {
  description = "Account that submits runs; people and CI act as it."
  value       = module.identities.submit
}

output "github_provider" {
  description = "Workload identity provider for GitHub Actions; null without github_repository."
  value       = module.identities.github_provider
}

output "admin_logins" {
  description = "User names of the servers' administrators and the names of the secrets that hold their passwords."
  value       = var.servers ? one(module.servers[*].admin_logins) : null
}

output "zenml_api_key_secret" {
  description = "Secret that the API key of ZenML for schedules is put into by hand."
  value       = module.given_secrets.names["${var.name}-zenml-api-key"]
}

output "ray_cluster" {
  description = "Arguments of vertex_ray.create_ray_cluster; null without ray."
  value = var.ray ? {
    network            = module.network.peered_name
    service_account    = one(module.ray[*].service_account)
    reserved_ip_ranges = [module.network.range_names["ray"]]
    labels             = local.labels
  } : null
}

output "names" {
  description = "Names of the secrets, never their values."
  value       = { for name, secret in google_secret_manager_secret.secret : name => secret.secret_id }
}

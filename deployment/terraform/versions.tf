terraform {
  # Validations that look at another variable came with 1.9.
  required_version = ">= 1.9.0, < 2.0.0"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "6.50.0"
    }
    random = {
      source  = "hashicorp/random"
      version = "3.7.2"
    }
  }

  # The state holds generated passwords: a bucket of its own, given at `terraform init`.
  backend "gcs" {}
}

provider "google" {
  project = var.project
  region  = var.region
}

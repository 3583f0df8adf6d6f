variable "project" {
  description = "Project of the jobs."
  type        = string
}

variable "region" {
  description = "Region of the jobs."
  type        = string
}

variable "name" {
  description = "What the names of the jobs begin with."
  type        = string
}

variable "labels" {
  description = "Labels for billing."
  type        = map(string)
}

variable "schedules" {
  description = "What runs when, by name: a verb of run.py, its arguments, a cron expression and its time zone."
  type = map(object({
    verb      = string
    args      = list(string)
    cron      = string
    time_zone = string
    paused    = bool
  }))

  validation {
    condition     = alltrue([for schedule in values(var.schedules) : can(regex("^[a-z][a-z-]*$", schedule.verb))])
    error_message = "A verb is one word of lower-case letters."
  }
}

variable "image" {
  description = "Image of the steps, for CPUs."
  type        = string
}

variable "bucket" {
  description = "Name of the bucket that holds the code."
  type        = string
}

variable "code" {
  description = "Folder in the bucket with run.py and all that belongs to it."
  type        = string
}

variable "zenml_server" {
  description = "URL of the ZenML server."
  type        = string
}

variable "zenml_api_key" {
  description = "Name of the secret with an API key of ZenML."
  type        = string
}

variable "subnet" {
  description = "Subnet that the jobs send from."
  type        = string
}

variable "private_servers" {
  description = "The servers take requests from the network only."
  type        = bool
}

variable "runner_service_account" {
  description = "Account that the jobs run as."
  type        = string
}

variable "scheduler_service_account" {
  description = "Account that starts the jobs."
  type        = string
}

variable "deletion_protection" {
  description = "Refuse to delete the jobs."
  type        = bool
}

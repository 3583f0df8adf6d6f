variable "project" {
  description = "Project of the secrets."
  type        = string
}

variable "labels" {
  description = "Labels for billing."
  type        = map(string)
}

variable "secrets" {
  description = "Secrets by name, and who may read each, by a name of your choice."
  type = map(object({
    readers = map(string)
  }))
}

variable "filled" {
  description = "Names of the secrets whose value is in values; the others are filled by hand."
  type        = set(string)
  default     = []

  validation {
    condition     = length(setsubtract(var.filled, keys(var.secrets))) == 0
    error_message = "Only secrets that are in secrets can be filled."
  }
}

variable "values" {
  description = "Values by name of the secret."
  type        = map(string)
  default     = {}
  sensitive   = true
}

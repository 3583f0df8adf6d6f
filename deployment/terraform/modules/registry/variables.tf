variable "project" {
  description = "Project of the repositories."
  type        = string
}

variable "location" {
  description = "Region of the repositories."
  type        = string
}

variable "name" {
  description = "Name of the repository of images; that of layers has -cache behind it."
  type        = string
}

variable "labels" {
  description = "Labels for billing."
  type        = map(string)
}

variable "scanning" {
  description = "Scan images for vulnerabilities when they are pushed."
  type        = bool
}

variable "untagged_days" {
  description = "Days after which an image that has no tag is deleted."
  type        = number
  default     = 14

  validation {
    condition     = var.untagged_days >= 1
    error_message = "At least a day."
  }
}

variable "cache_days" {
  description = "Days after which a cached layer is deleted."
  type        = number
  default     = 30

  validation {
    condition     = var.cache_days >= 1
    error_message = "At least a day."
  }
}

variable "readers" {
  description = "Who may pull images, by a name of your choice."
  type        = map(string)
}

variable "writers" {
  description = "Who may push images and cached layers, by a name of your choice."
  type        = map(string)
}

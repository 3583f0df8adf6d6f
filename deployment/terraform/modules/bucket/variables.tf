variable "project" {
  description = "Project of the bucket."
  type        = string
}

variable "location" {
  description = "Region of the bucket: that of the jobs, or every read is billed as traffic."
  type        = string
}

variable "name" {
  description = "Name of the bucket, unique in the world."
  type        = string
}

variable "labels" {
  description = "Labels for billing."
  type        = map(string)
}

variable "expiry_days" {
  description = "Days after which objects under a prefix are deleted. What is not named stays."
  type        = map(number)

  validation {
    condition     = alltrue([for prefix, days in var.expiry_days : endswith(prefix, "/") && days >= 1])
    error_message = "A prefix ends with / and stays for at least a day."
  }
}

variable "noncurrent_days" {
  description = "Days that an overwritten or deleted object can still be brought back as a version."
  type        = number
  default     = 30

  validation {
    condition     = var.noncurrent_days >= 1
    error_message = "At least a day."
  }
}

variable "soft_delete_days" {
  description = "Days that a deleted object or bucket can be restored by Cloud Storage itself."
  type        = number
  default     = 7

  validation {
    condition     = var.soft_delete_days == 0 || (var.soft_delete_days >= 7 && var.soft_delete_days <= 90)
    error_message = "0, or 7 to 90 days."
  }
}

variable "members" {
  description = "Who may do what, by a name of your choice; with prefix only below it (for reading single objects)."
  type = map(object({
    role   = string
    member = string
    prefix = optional(string)
  }))

  validation {
    condition     = alltrue([for grant in values(var.members) : startswith(grant.role, "roles/storage.object")])
    error_message = "Roles on objects only: nobody here administers the bucket."
  }
}

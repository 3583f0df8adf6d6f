variable "project" {
  description = "Project of the servers."
  type        = string
}

variable "region" {
  description = "Region of the servers."
  type        = string
}

variable "name" {
  description = "What the names of the servers begin with."
  type        = string
}

variable "labels" {
  description = "Labels for billing."
  type        = map(string)
}

variable "network" {
  description = "Id of the network, peered with Google's services."
  type        = string
}

variable "subnet" {
  description = "Subnet that the servers reach the database from."
  type        = string
}

variable "zenml_image" {
  description = "Image of the ZenML server, with its version."
  type        = string

  validation {
    condition     = can(regex(":[0-9]+\\.[0-9]+\\.[0-9]+$", var.zenml_image))
    error_message = "An image with an exact version."
  }
}

variable "mlflow_image" {
  description = "Image of the MLflow server, with its version."
  type        = string

  validation {
    condition     = can(regex(":[0-9]+\\.[0-9]+\\.[0-9]+[a-z0-9.-]*$", var.mlflow_image))
    error_message = "An image with an exact version."
  }
}

variable "mlflow_bucket" {
  description = "Bucket for the files of MLflow, as gs://NAME."
  type        = string
}

variable "zenml_service_account" {
  description = "Account of the ZenML server."
  type        = string
}

variable "mlflow_service_account" {
  description = "Account of the MLflow server."
  type        = string
}

variable "public" {
  description = "Take requests from the internet; otherwise from the network only."
  type        = bool
}

variable "database_tier" {
  description = "Machine of the database."
  type        = string
}

variable "database_available" {
  description = "Keep a standby of the database in another zone."
  type        = bool
}

variable "database_version" {
  description = "MySQL, the one database that the ZenML server works with."
  type        = string
  default     = "MYSQL_8_0"

  validation {
    condition     = contains(["MYSQL_8_0", "MYSQL_8_4"], var.database_version)
    error_message = "MYSQL_8_0 or MYSQL_8_4."
  }
}

variable "deletion_protection" {
  description = "Refuse to delete the database and the servers."
  type        = bool
}

variable "administrator" {
  description = "User name of the administrator of both servers."
  type        = string
  default     = "admin"

  validation {
    condition     = can(regex("^[a-z][a-z0-9_-]{1,30}$", var.administrator))
    error_message = "Lower-case letters, digits, hyphens and underscores."
  }
}

variable "max_instances" {
  description = "Most instances of each server; one is always there."
  type        = number
  default     = 2

  validation {
    condition     = var.max_instances >= 1 && var.max_instances <= 20
    error_message = "1 to 20."
  }
}

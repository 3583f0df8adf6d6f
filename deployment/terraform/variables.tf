variable "project" {
  description = "Project that everything is made in. It must exist and have billing."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "A project id has 6 to 30 lower-case letters, digits and hyphens and begins with a letter."
  }
}

variable "region" {
  description = "Region of the jobs, the bucket, the images and the servers. It must have the GPU that you ask for."
  type        = string

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "A region looks like us-central1."
  }
}

variable "name" {
  description = "What the names of all resources begin with."
  type        = string
  default     = "tamis"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,13}[a-z0-9]$", var.name))
    error_message = "3 to 15 lower-case letters, digits and hyphens, beginning with a letter: service accounts are named with it."
  }
}

variable "bucket" {
  description = "Name of the bucket; null makes it PROJECT-NAME. MLflow's gets -mlflow behind it."
  type        = string
  default     = null

  validation {
    condition     = var.bucket == null || can(regex("^[a-z0-9][a-z0-9_-]{1,53}[a-z0-9]$", var.bucket))
    error_message = "3 to 55 lower-case letters, digits, hyphens and underscores."
  }
}

variable "labels" {
  description = "Labels for billing, on every resource and every job."
  type        = map(string)
  default     = {}

  validation {
    condition = alltrue([
      for key, value in var.labels :
      can(regex("^[a-z][a-z0-9_-]{0,62}$", key)) && can(regex("^[a-z0-9_-]{0,63}$", value))
    ])
    error_message = "Keys and values are at most 63 of a-z, 0-9, _ and -; a key begins with a letter."
  }
}

variable "image_version" {
  description = "Version of the images, as given to Cloud Build as _VERSION."
  type        = string

  validation {
    condition     = can(regex("^[0-9]+\\.[0-9]+\\.[0-9]+[a-z0-9.-]*$", var.image_version))
    error_message = "A version looks like 0.1.0."
  }
}

variable "image_scanning" {
  description = "Scan images for vulnerabilities when they are pushed; billed by image."
  type        = bool
  default     = true
}

variable "servers" {
  description = "Make the ZenML and MLflow servers. Their image has to be built first, so the first apply goes without."
  type        = bool
  default     = false
}

variable "public_servers" {
  description = "Let the servers be reached from the internet; they ask for a login themselves. Steps on Vertex AI run outside your network, so without it you have to bring a way for them."
  type        = bool
  default     = false
}

variable "zenml_server" {
  description = "URL of a ZenML server that you have already; used while servers is false."
  type        = string
  default     = null

  validation {
    condition     = var.zenml_server == null || can(regex("^https://[^/]+", var.zenml_server))
    error_message = "A URL that begins with https://."
  }
}

variable "mlflow_server" {
  description = "URL of an MLflow server that you have already; used while servers is false."
  type        = string
  default     = null

  validation {
    condition     = var.mlflow_server == null || can(regex("^https://[^/]+", var.mlflow_server))
    error_message = "A URL that begins with https://."
  }
}

variable "mlflow_secret" {
  description = "Name of the ZenML secret with the keys username and password of MLflow. Made by hand, once."
  type        = string
  default     = "tamis_mlflow"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,100}$", var.mlflow_secret))
    error_message = "Letters, digits, hyphens and underscores."
  }
}

variable "zenml_version" {
  description = "Version of the ZenML server: the one in requirements.txt, or steps cannot talk to it."
  type        = string
  default     = "0.98.0"

  validation {
    condition     = can(regex("^[0-9]+\\.[0-9]+\\.[0-9]+$", var.zenml_version))
    error_message = "A version looks like 0.98.0."
  }
}

variable "database_tier" {
  description = "Machine of the database behind both servers."
  type        = string
  default     = "db-custom-1-3840"

  validation {
    condition     = can(regex("^db-(custom-[0-9]+-[0-9]+|f1-micro|g1-small|n1-[a-z0-9-]+)$", var.database_tier))
    error_message = "A tier of Cloud SQL for MySQL, such as db-custom-1-3840."
  }
}

variable "database_available" {
  description = "Keep a standby of the database in another zone; doubles its price."
  type        = bool
  default     = false
}

variable "deletion_protection" {
  description = "Refuse to delete the database and the servers. Set to false, apply, then destroy."
  type        = bool
  default     = true
}

variable "vertex_peering" {
  description = "Run the jobs in the peered network, so that they reach private addresses in it."
  type        = bool
  default     = false
}

variable "subnet_range" {
  description = "Addresses of the subnet that the servers use."
  type        = string
  default     = "10.10.0.0/24"

  validation {
    condition     = can(cidrhost(var.subnet_range, 0))
    error_message = "A range such as 10.10.0.0/24."
  }
}

variable "machines" {
  description = "Machines by name: of a CPU step (cores, memory) and of a GPU step (type, GPU, spot, boot disk in GB)."
  type = object({
    cpu = object({ cpu = number, memory = string })
    gpu = object({
      machine_type = string
      gpu          = object({ type = string, count = number })
      spot         = bool
      boot_disk_gb = number
    })
  })
  default = {
    cpu = { cpu = 4, memory = "16GiB" }
    gpu = {
      machine_type = "g2-standard-8"
      gpu          = { type = "NVIDIA_L4", count = 1 }
      spot         = true
      boot_disk_gb = 200
    }
  }

  validation {
    condition     = var.machines.cpu.cpu > 0 && can(regex("^[0-9]+GiB$", var.machines.cpu.memory))
    error_message = "Cores are more than 0, memory looks like 16GiB."
  }

  validation {
    condition     = var.machines.gpu.gpu.count > 0 && var.machines.gpu.boot_disk_gb >= 100
    error_message = "At least one GPU, and a boot disk of 100 GB or more: the image alone takes a good part of it."
  }
}

variable "steps" {
  description = "Which machine a step gets; default is for the steps that are not named."
  type        = map(string)
  default     = { default = "cpu", train = "gpu", sift = "gpu", score_sample = "gpu" }

  validation {
    condition     = contains(keys(var.steps), "default") && alltrue([for machine in values(var.steps) : contains(["cpu", "gpu"], machine)])
    error_message = "Names a machine (cpu or gpu) by step, and one as default."
  }
}

variable "retries" {
  description = "How often a step that failed or was preempted is tried again."
  type        = number
  default     = 2

  validation {
    condition     = var.retries >= 0 && var.retries <= 10 && floor(var.retries) == var.retries
    error_message = "A whole number from 0 to 10."
  }
}

variable "submitters" {
  description = "Who may act as the submitting account, such as group:ml@example.com."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for member in var.submitters : can(regex("^(user|group|serviceAccount):[^@]+@.+$", member))])
    error_message = "Each one looks like user:..., group:... or serviceAccount:..."
  }
}

variable "github_repository" {
  description = "OWNER/NAME of a GitHub repository whose main branch may submit without a key; null for none."
  type        = string
  default     = null

  validation {
    condition     = var.github_repository == null || can(regex("^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$", var.github_repository))
    error_message = "OWNER/NAME."
  }
}

variable "schedules" {
  description = "Verbs of run.py by name of the schedule, for what Vertex's own schedules do not cover. Needs the API key of ZenML in its secret and the code in the bucket."
  type = map(object({
    verb      = string
    args      = optional(list(string), [])
    cron      = string
    time_zone = optional(string, "Etc/UTC")
    paused    = optional(bool, false)
  }))
  default = {}

  validation {
    condition     = alltrue([for name in keys(var.schedules) : can(regex("^[a-z][a-z0-9-]{0,20}$", name))])
    error_message = "A name is at most 21 lower-case letters, digits and hyphens and begins with a letter."
  }

  validation {
    condition     = alltrue([for schedule in values(var.schedules) : length(split(" ", trimspace(schedule.cron))) == 5])
    error_message = "A cron expression has five fields."
  }

  validation {
    condition     = length(var.schedules) == 0 || var.servers || var.zenml_server != null
    error_message = "A schedule needs a ZenML server: set servers or zenml_server."
  }
}

variable "ray" {
  description = "Make what a Ray cluster on Vertex AI needs: an account and addresses. The cluster itself is made with the SDK."
  type        = bool
  default     = false
}

variable "project" {
  description = "Project of the cluster."
  type        = string
}

variable "name" {
  description = "What the name of the account begins with."
  type        = string
}

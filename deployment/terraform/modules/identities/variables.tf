variable "project" {
  description = "Project of the accounts."
  type        = string
}

variable "name" {
  description = "What the names of the accounts begin with."
  type        = string
}

variable "submitters" {
  description = "Who may act as the submitting account."
  type        = set(string)
}

variable "github_repository" {
  description = "OWNER/NAME of a GitHub repository whose main branch may submit; null for none."
  type        = string
}

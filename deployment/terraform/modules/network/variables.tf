variable "project" {
  description = "Project of the network."
  type        = string
}

variable "project_number" {
  description = "Number of the project; Vertex AI names a network by it."
  type        = string
}

variable "region" {
  description = "Region of the subnet."
  type        = string
}

variable "name" {
  description = "Name of the network; the subnet has it too."
  type        = string
}

variable "subnet_range" {
  description = "Addresses of the subnet."
  type        = string
}

variable "peering_ranges" {
  description = "Ranges kept for Google's services, by name, as length of the prefix."
  type        = map(number)

  validation {
    condition     = alltrue([for length in values(var.peering_ranges) : length >= 16 && length <= 24])
    error_message = "A prefix has 16 to 24 bits."
  }
}

variable "project" {
  description = "Project that the services are enabled in."
  type        = string
}

variable "image_scanning" {
  description = "Enable the scanning of images too; it is billed by image."
  type        = bool
}

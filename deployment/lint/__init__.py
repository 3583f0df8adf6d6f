"""What `make check` asks of manifests, images and workflows, beside their schemas."""

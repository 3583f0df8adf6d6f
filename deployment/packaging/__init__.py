"""A registered version as a package: Bento, lock file, list of materials, Dockerfile, record."""

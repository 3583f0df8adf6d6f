"""Pipelines: wiring only. The same graph runs on every stack."""

"""Prometheus, Alertmanager and Grafana for the service and the watcher."""

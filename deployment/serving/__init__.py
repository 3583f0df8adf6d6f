"""The HTTP side of serving: routes, guard, metrics, processes."""

"""The webhook that alerts come in by, and the worker that has each looked at once."""

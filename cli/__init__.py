"""The verbs of the command line. Nothing heavy is imported before it is needed."""

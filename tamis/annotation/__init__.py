"""Labels from a language model: choose documents, ask for scores, keep every answer."""

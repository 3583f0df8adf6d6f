"""Steps: about ten lines each around one call into the engine."""

"""Ways to run the encoder: one small interface, several engines behind it."""

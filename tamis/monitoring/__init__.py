"""Whether new documents still resemble the old."""

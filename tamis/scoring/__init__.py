"""Scores for a whole corpus, and what is kept."""

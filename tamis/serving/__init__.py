"""A trained classifier behind an API: what is served, how requests wait, who may ask how often."""

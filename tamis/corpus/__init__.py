"""Documents: sources, readers, shards, splits, duplicates."""

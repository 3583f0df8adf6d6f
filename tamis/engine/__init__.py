"""One function over many shards."""

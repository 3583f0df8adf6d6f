"""How artifacts are kept: safetensors, Parquet, JSON and HTML; never a pickle."""

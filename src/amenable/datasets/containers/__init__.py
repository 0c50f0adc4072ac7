"""One file a container: raw rows out of JSONL, JSON, CSV, Parquet and plain text."""

"""One file a format: rows into files."""

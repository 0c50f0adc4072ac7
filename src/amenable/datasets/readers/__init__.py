"""One file a format: rows out of files."""

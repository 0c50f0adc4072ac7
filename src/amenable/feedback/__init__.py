"""People's work."""

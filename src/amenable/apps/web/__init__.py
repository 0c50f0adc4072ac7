"""The pages, without torch."""

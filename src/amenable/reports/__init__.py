"""Scores and runs in, pages and pictures out."""

"""Samples in, scores out."""

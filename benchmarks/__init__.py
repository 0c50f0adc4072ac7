"""Measurements for docs/experiments.md; nothing here is imported by the product."""

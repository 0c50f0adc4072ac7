"""A reply in, a mark out."""

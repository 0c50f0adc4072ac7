"""Arithmetic only: log-probabilities in, a sum and its count out."""

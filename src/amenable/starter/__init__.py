"""Data written for this project (CC0): demonstrations, prompts with checks, plain text."""

"""Turns a normal language model into an instruct model with feedback from your own people."""

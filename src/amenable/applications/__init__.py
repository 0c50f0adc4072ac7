"""What an instruct model is for."""

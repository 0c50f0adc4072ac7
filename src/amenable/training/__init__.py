"""Two loops, one step, one file per loss."""

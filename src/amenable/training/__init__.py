"""One loop, one step, one file per loss."""

"""Training speed against named peers: the same examples, the same steps, in one run, in turns."""

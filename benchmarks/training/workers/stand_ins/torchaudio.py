"""An empty stand-in: a peer imports it for sounds, and the registry's build needs CUDA."""

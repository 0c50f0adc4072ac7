"""The doors: command line, pages, serving."""

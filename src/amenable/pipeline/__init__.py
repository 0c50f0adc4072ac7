"""The way from base model to report, one file per stage, each recorded as a Run."""

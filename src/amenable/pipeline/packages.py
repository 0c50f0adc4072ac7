"""What training needs beside the program itself, found without loading any of it."""

from importlib.util import find_spec

TRAINING = ("torch", "transformers", "tokenizers", "safetensors", "peft", "gguf")
INSTALL = "pip install 'amenable[train]'"


def missing_for_training() -> list[str]:
    return [name for name in TRAINING if find_spec(name) is None]

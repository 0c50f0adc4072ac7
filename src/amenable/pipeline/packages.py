"""What training needs beside the program itself, found without loading any of it."""

from importlib.util import find_spec

from amenable.records.errors import CannotStartError

TRAINING = ("torch", "transformers", "tokenizers", "safetensors", "peft", "gguf")
INSTALL = "pip install 'amenable[train]'"
INSTALL_FOUR_BITS = "pip install 'amenable[train,qlora]'"


def missing_for_training() -> list[str]:
    return [name for name in TRAINING if find_spec(name) is None]


def needs_four_bits() -> None:
    """What packs weights is installed apart, since only QLoRA uses it."""
    if find_spec("bitsandbytes") is None:
        raise CannotStartError(f"QLoRA needs bitsandbytes. Install with: {INSTALL_FOUR_BITS}")

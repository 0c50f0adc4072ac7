"""What a run of pretraining learned from, and how well it predicts the texts that were held out."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from amenable.evaluation.perplexity import TextsRead
from amenable.store.artifacts import write_whole

RESULT_FILE = "pretrained.json"
"""In the run's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretrained:
    """The result of a run, as far as it is known."""

    sets: Mapping[str, str]
    """The data sets by name, with their sha256."""
    num_texts: int
    """Learned from."""
    num_bytes: int
    num_held_out: int
    is_one_text: bool
    """Then its end is what was held out."""
    num_empty: int
    vocabulary: int
    vocabulary_wanted: int
    before: TextsRead | None = None
    """None for a new model, which knows nothing."""
    after: TextsRead | None = None
    """None while it is trained."""

    def outputs(self) -> dict[str, str]:
        """For the run's record."""
        said = {
            "texts": str(self.num_texts),
            "held_out": "the end of the text" if self.is_one_text else str(self.num_held_out),
        }
        if self.num_empty:
            said["empty"] = str(self.num_empty)
        if self.vocabulary < self.vocabulary_wanted:
            said["vocabulary"] = f"{self.vocabulary} tokens: the texts give no more"
        if self.before is not None:
            said["bits_before"] = _bits(self.before)
        if self.after is not None:
            said["bits_per_byte"] = _bits(self.after)
        return said

    def keep(self, folder: Path) -> None:
        write_whole(folder / RESULT_FILE, _PRETRAINED.dump_json(self, indent=1) + b"\n")

    @classmethod
    def kept(cls, folder: Path) -> "Pretrained | None":
        """What an earlier attempt of this run has found."""
        path = folder / RESULT_FILE
        return _PRETRAINED.validate_json(path.read_bytes()) if path.is_file() else None


_PRETRAINED = TypeAdapter(Pretrained)


def _bits(read: TextsRead) -> str:
    ends = read.bits_per_byte_ends
    spread = "" if ends is None else f" ({ends[0]:.3f} to {ends[1]:.3f})"
    return f"{read.bits_per_byte:.3f}{spread}"

"""All that a resume needs, written whole or not at all: the marker with every hash comes last."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from amenable.records.errors import ModelError

MARKER, TENSORS = "state.json", "state.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands: steps and tokens done, and seconds spent in all its lives."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def after(self, *, tokens: int, seconds: float) -> "Progress":
        return replace(
            self, step=self.step + 1, tokens=self.tokens + tokens, seconds=self.seconds + seconds
        )


def save_checkpoint(
    folder: Path, progress: Progress, tensors: Mapping[str, Tensor], key: str
) -> None:
    """Write a new checkpoint beside the last one, then remove the last one.

    `key` says what the state belongs to (data, config, parent), so that no other run takes it up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step-{progress.step:06d}"
    unfinished = folder / f"{target.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        _write(unfinished, progress, tensors, key)
        if target.exists():
            shutil.rmtree(target)
        unfinished.rename(target)
    except BaseException:
        # On a full disk half a checkpoint would keep the room that going on needs.
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    for other in folder.iterdir():
        if other != target and not other.name.startswith("broken"):
            shutil.rmtree(other, ignore_errors=True)


def _write(folder: Path, progress: Progress, tensors: Mapping[str, Tensor], key: str) -> None:
    save_file(dict(tensors), folder / TENSORS)
    digest = flushed_hash(folder / TENSORS)
    marker = json.dumps({"progress": asdict(progress), "sha256": digest, "key": key})
    signed = {"marker": marker, "sha256": hashlib.sha256(marker.encode()).hexdigest()}
    (folder / MARKER).write_text(json.dumps(signed), encoding="utf-8")
    flushed_hash(folder / MARKER)


def load_checkpoint(folder: Path, key: str) -> tuple[Progress, dict[str, Tensor]] | None:
    """The newest whole checkpoint of this run; a broken one is set aside, never fatal."""
    if not folder.is_dir():
        return None
    for candidate in sorted(folder.glob("step-*"), reverse=True):
        if candidate.name.endswith(".unfinished"):
            continue
        try:
            return _read(candidate, key)
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            SafetensorError,
            ModelError,
        ):
            candidate.rename(folder / f"broken-{candidate.name}-{os.getpid()}")
    return None


def _read(folder: Path, key: str) -> tuple[Progress, dict[str, Tensor]]:
    signed = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    if hashlib.sha256(signed["marker"].encode()).hexdigest() != signed["sha256"]:
        raise ModelError(f"{folder} is damaged.")
    marker = json.loads(signed["marker"])
    if marker["key"] != key:
        raise ModelError(f"{folder} belongs to another run.")
    if hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest() != marker["sha256"]:
        raise ModelError(f"{folder} is damaged.")
    return Progress(**marker["progress"]), load_file(folder / TENSORS)


def flushed_hash(path: Path) -> str:
    """Of a file's bytes, which are on the disk when this returns."""
    with path.open("rb+") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return digest

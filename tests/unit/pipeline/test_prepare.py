"""Models into the library: by name, folder or file; terms first, and never twice."""

import re
import shutil
from pathlib import Path

import pytest
from tests.tiny import put_tiny, save_tiny
from tests.unit.pipeline.stage_help import SMALL_FINETUNE, done, run

from amenable.pipeline.engines import open_engine
from amenable.pipeline.licences import is_accepted
from amenable.pipeline.prepare import add_model
from amenable.pipeline.sources import STARTER_DEMONSTRATIONS, STARTER_PROMPTS, install_starter
from amenable.pipeline.stage import execute, resume
from amenable.pipeline.stages import STAGES
from amenable.records.errors import ModelError, NotAllowedError
from amenable.store import library
from amenable.store.artifacts import hash_folder
from amenable.store.tables import RunRow
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
        ("Tiny.Instruct_v2", "instruct", "gemma"),
        ("italian-base", "base", "plain"),
        ("gpt2-italian", "base", "plain"),
        ("x-iter-3", "base", "plain"),
    ],
)
def test_the_name_says_whether_it_is_ready(
    workspace: Workspace, tmp_path: Path, folder: str, kind: str, form: str
):
    name = add_model(workspace, str(save_tiny(tmp_path / folder)), no_words)
    with workspace.database.read() as session:
        row = library.model(session, name)
    assert (row.kind, row.chat_form) == (kind, form)


def test_a_long_name_leaves_room_for_those_of_its_versions(workspace: Workspace, tmp_path: Path):
    name = add_model(workspace, str(save_tiny(tmp_path / ("long" * 20))), no_words)
    install_starter(workspace)
    assert name == "long" * 15
    assert done(workspace, "finetune", name, SMALL_FINETUNE) == f"{name}-instruct-1"


def test_another_model_of_the_same_name_gets_a_name_of_its_own(
    workspace: Workspace, tmp_path: Path
):
    put_tiny(workspace)
    assert add_model(workspace, str(save_tiny(tmp_path / "tiny", seed=2)), no_words) == "tiny-2"


def sha256_of(workspace: Workspace, name: str) -> str:
    with workspace.database.read() as session:
        return library.model(session, name).sha256


@pytest.mark.parametrize("damage", ["cut", "file", "folder"])
def test_damaged_or_missing_files_are_brought_anew_under_the_same_name(
    workspace: Workspace, tmp_path: Path, damage: str
):
    name = add_model(workspace, str(save_tiny(tmp_path / "base")), no_words)
    sha256, folder = sha256_of(workspace, name), workspace.library / name
    weights = folder / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "file":
        weights.unlink()
    else:
        shutil.rmtree(folder)
    said: list[str] = []

    assert add_model(workspace, name, said.append) == name

    assert hash_folder(folder) == sha256_of(workspace, name) == sha256
    assert "The files of base are damaged or missing: they are brought anew" in said
    said.clear()
    add_model(workspace, name, said.append)
    assert said == ["Checking the files of base"]  # whole again


def test_another_conversion_says_so_and_its_versions_speak_no_more(
    workspace: Workspace, tmp_path: Path
):
    origin = save_tiny(tmp_path / "base")
    name = add_model(workspace, str(origin), no_words)
    install_starter(workspace)
    version = done(workspace, "finetune", name, SMALL_FINETUNE)
    before = sha256_of(workspace, name)
    save_tiny(origin, seed=2)
    (workspace.library / name / "model.safetensors").unlink()
    said: list[str] = []

    assert add_model(workspace, name, said.append) == name

    assert said[-1] == (
        "base is now another conversion than before, on which its versions cannot speak: "
        "base-instruct-1"
    )
    assert hash_folder(workspace.library / name) == sha256_of(workspace, name) != before
    with pytest.raises(ModelError, match="other weights than those of base"):
        open_engine(workspace, [version])


def test_what_cannot_be_brought_again_is_said_in_one_line(workspace: Workspace, tmp_path: Path):
    origin = save_tiny(tmp_path / "base")
    name = add_model(workspace, str(origin), no_words)
    install_starter(workspace)
    version = done(workspace, "finetune", name, SMALL_FINETUNE)
    shutil.rmtree(origin)
    for each, why in ((name, f"{origin} is gone"), (version, "it was trained here")):
        shutil.rmtree(workspace.library / each)
        with pytest.raises(ModelError, match=re.escape(why)) as caught:
            add_model(workspace, each, no_words)
        assert "\n" not in str(caught.value)


def test_a_run_that_died_after_its_model_was_kept_makes_no_second_one(
    workspace: Workspace, tmp_path: Path
):
    ended = run(workspace, "prepare", str(save_tiny(tmp_path / "My Model")))
    assert ended.outputs == {"model": "my-model"}, ended.error
    with workspace.database.write() as session:
        session.get_one(RunRow, ended.id).status = "failed"
    resume(workspace, ended.id)

    assert execute(workspace, ended.id, STAGES).outputs == {"model": "my-model"}

    with workspace.database.read() as session:
        assert [row.name for row in library.models(session)] == ["my-model"]


def test_terms_come_first(workspace: Workspace):
    with pytest.raises(NotAllowedError, match=r"Gemma Terms of Use.*--accept-licence"):
        add_model(workspace, "gemma-3-270m", no_words)
    assert not list(workspace.downloads.iterdir())


def test_a_base_without_weights_says_how_to_get_them_back(workspace: Workspace):
    name = put_tiny(workspace)
    (workspace.library / name / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=f"To bring it anew: amenable models add {name}"):
        open_engine(workspace, [name])


@pytest.mark.parametrize("wanted", ["./nothing", "/nowhere/nothing", "~/nothing", "a/b/nothing"])
def test_a_path_to_nothing_is_not_looked_for_on_the_hub(workspace: Workspace, wanted: str):
    with pytest.raises(ModelError, match=f"no file or folder {wanted}"):
        add_model(workspace, wanted, no_words)


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

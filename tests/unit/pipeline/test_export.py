"""What is handed to other programs says the same when it comes back."""

import json
from pathlib import Path

import pytest
from tests.tiny import put_tiny
from tests.unit.pipeline.stage_help import SMALL_FINETUNE, done

from amenable.pipeline.config import ExportConfig
from amenable.pipeline.export import export_model
from amenable.pipeline.prepare import add_model
from amenable.pipeline.sources import install_starter
from amenable.records.errors import ConflictError, ModelError, NotFoundError
from amenable.store import library
from amenable.store.workspace import Workspace

MERGED, ADAPTER = ExportConfig(form="merged"), ExportConfig(form="adapter")


@pytest.fixture
def version(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> str:
    """In fp32: in bf16 a merged sum is rounded once, a separate product twice."""
    monkeypatch.setattr("amenable.models.policy.compute_dtype", lambda: __import__("torch").float32)
    install_starter(workspace)
    base = put_tiny(workspace)
    (workspace.library / base / "LICENCE.txt").write_text("Some terms.", "utf-8")
    return done(workspace, "finetune", base, SMALL_FINETUNE)


@pytest.mark.parametrize("config", [MERGED, ADAPTER], ids=["merged", "adapter"])
def test_the_replies_are_the_same_and_the_terms_go_with_it(
    workspace: Workspace, version: str, tmp_path: Path, config: ExportConfig
):
    exported = export_model(workspace, version, tmp_path / "out", config)
    assert (exported.same, exported.total) == (5, 5)
    assert exported.to_json()["same_replies"] == 5
    assert (tmp_path / "out" / "LICENCE.txt").read_text("utf-8") == "Some terms."
    card = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert card.startswith(f"# {version}\n")
    assert "## From: tiny" in card
    assert "starter-demonstrations" in card
    speech = json.loads((tmp_path / "out" / "generation_config.json").read_text("utf-8"))
    assert speech["eos_token_id"] == [5, 1]
    assert (tmp_path / "out" / "chat_template.jinja").is_file()
    assert not list(tmp_path.glob("*.unfinished"))


def test_what_was_exported_merged_can_be_brought_back_in(
    workspace: Workspace, version: str, tmp_path: Path
):
    export_model(workspace, version, tmp_path / "mine-instruct", MERGED)
    name = add_model(workspace, str(tmp_path / "mine-instruct"), lambda _: None)
    with workspace.database.read() as session:
        assert library.model(session, name).chat_form == "gemma"


def test_a_base_is_exported_whole_and_has_no_adapter(
    workspace: Workspace, version: str, tmp_path: Path
):
    exported = export_model(workspace, "tiny", tmp_path / "out", MERGED)
    assert exported.same == exported.total
    assert not (tmp_path / "out" / "chat_template.jinja").exists()
    with pytest.raises(ModelError, match="tiny has no adapter of its own; export it merged"):
        export_model(workspace, "tiny", tmp_path / "other", ADAPTER)
    assert not (tmp_path / "other").exists()


def test_a_folder_that_is_there_is_not_written_over(
    workspace: Workspace, version: str, tmp_path: Path
):
    (tmp_path / "out").mkdir()
    with pytest.raises(ConflictError, match="is there already"):
        export_model(workspace, version, tmp_path / "out", MERGED)


def test_an_unknown_model_is_named(workspace: Workspace, tmp_path: Path):
    with pytest.raises(NotFoundError, match="'ghost'"):
        export_model(workspace, "ghost", tmp_path / "out", MERGED)

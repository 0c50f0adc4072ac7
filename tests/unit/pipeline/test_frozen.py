"""What a run learns from is kept in its folder, and needs no workspace to be read again."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from amenable.datasets.examples import Example, PreferenceExample, RatedExample, TextExample
from amenable.pipeline.frozen import corpus_of, freeze, judgements_of
from amenable.pipeline.judgements import JUDGEMENTS
from amenable.pipeline.sources import install_starter
from amenable.pipeline.texts import CORPUS_FILE
from amenable.records.conversation import Conversation
from amenable.records.run import Run
from amenable.store import library, runs
from amenable.store.database import Database
from amenable.store.library import DatasetEntry, ModelEntry
from amenable.store.workspace import Workspace

PROMPT = Conversation.of(("user", "Hi"))
PAIRS = [PreferenceExample(prompt=PROMPT, chosen=f"Yes {at}.", rejected="No.") for at in range(2)]
RATED = [RatedExample(prompt=PROMPT, reply="Ä b", is_good=False)]
TEXTS = [TextExample(text=f"Page {at}. " + "The sea is wide. " * 40) for at in range(20)]
KTO = {"preference": {"loss": "kto"}}


def put(database: Database, name: str, kind: str, rows: list[Example]) -> None:
    entry = DatasetEntry(name=name, sha256=name, kind=kind, source="a test", licence="CC0-1.0")
    with database.write() as session:
        library.add_dataset(session, entry, [row.to_json() for row in rows])


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    install_starter(workspace)
    put(workspace.database, "pairs", "preference", [*PAIRS])
    put(workspace.database, "rated", "kto", [*RATED])
    put(workspace.database, "pages", "text", [*TEXTS])
    add_parent(workspace)
    return workspace


def add_parent(workspace: Workspace) -> None:
    entry = ModelEntry(
        name="parent",
        sha256="p",
        kind="policy",
        chat_form="gemma",
        licence="CC0-1.0",
        origin="a test",
        folder="library/parent",
    )
    with workspace.database.write() as session:
        library.add_model(session, entry)


def run_of(workspace: Workspace, stage: str, data: str, config: Mapping[str, object]) -> Run:
    inputs = {"model": "parent", "data": data}
    with workspace.database.write() as session:
        run_id = runs.queue(session, stage=stage, inputs=inputs, config=config, seed=1)
        return runs.get(session, run_id)


def test_judgements_are_read_again_without_their_workspace(filled: Workspace, tmp_path: Path):
    run = run_of(filled, "align", "pairs,rated", KTO)
    folder = filled.run_folder(run.id)
    with filled.database.read() as session:
        expected = judgements_of(session, run, folder)
        freeze(session, run, folder)

    with Workspace.open(tmp_path / "there") as there:
        add_parent(there)
        with there.database.read() as session:
            found = judgements_of(session, run, folder)

    assert [each.left.text for each in found.imported] == ["Yes 0.", "Yes 1."]
    assert found.comparisons == expected.comparisons
    assert found.ratings == expected.ratings
    assert (found.counts(), found.sets) == (expected.counts(), expected.sets)


def test_a_run_that_kept_the_names_alone_goes_on_in_its_workspace(filled: Workspace):
    run = run_of(filled, "reward", "pairs", {})
    folder = filled.run_folder(run.id)
    one = {"name": "pairs", "sha256": "pairs", "places": [1], "num_equal": 0}
    kept = {"judgements": [], "thumbs": {}, "sets": [one]}
    (folder / JUDGEMENTS).write_text(json.dumps(kept), "utf-8")

    with filled.database.read() as session:
        found = judgements_of(session, run, folder)

    assert [each.left.text for each in found.imported] == ["Yes 1."]


def test_texts_are_read_again_without_their_workspace(filled: Workspace, tmp_path: Path):
    run = run_of(filled, "pretrain", "pages", {})
    folder = filled.run_folder(run.id)
    with filled.database.read() as session:
        expected = corpus_of(session, run, folder)
        assert not (folder / CORPUS_FILE).exists()
        freeze(session, run, folder)

    with Workspace.open(tmp_path / "there") as there, there.database.read() as session:
        assert corpus_of(session, run, folder) == expected

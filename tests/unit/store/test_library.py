"""Models and data sets by name and content hash."""

import hashlib
from dataclasses import replace

import pytest
from sqlalchemy.orm import Session

from amenable.records.errors import ConfigError, ConflictError, NotFoundError
from amenable.store import library, runs
from amenable.store.database import Database
from amenable.store.library import DatasetEntry, FamilyNode, ModelEntry
from amenable.store.runs import RunEnd


def entry(name: str, parent: str | None = None) -> ModelEntry:
    return ModelEntry(
        name=name,
        sha256=hashlib.sha256(name.encode()).hexdigest(),
        kind="policy" if parent else "base",
        chat_form="gemma",
        licence="CC0",
        origin="made for this test",
        folder=f"library/{name}-00000000",
        parent=parent,
        base=parent,
    )


def dataset(name: str = "mine", sha256: str = "a" * 64) -> DatasetEntry:
    return DatasetEntry(name=name, sha256=sha256, kind="conversation", source="mine.jsonl")


def test_a_model_is_found_by_name_and_an_unknown_one_names_the_known(database: Database):
    with database.write() as session:
        library.add_model(session, entry("base"))

    with database.read() as session:
        assert library.model(session, "base").folder == "library/base-00000000"
        with pytest.raises(NotFoundError, match=r"no model 'bass'\. There are: base"):
            library.model(session, "bass")


def test_adding_the_same_model_again_is_harmless_and_another_is_refused(database: Database):
    with database.write() as session:
        first = library.add_model(session, entry("base"))
        again = library.add_model(session, entry("base"))
        with pytest.raises(ConflictError, match="called 'base' already"):
            library.add_model(session, replace(entry("base"), sha256="f" * 64))

    assert first.id == again.id


@pytest.mark.parametrize("name", ["", "a b", "../a", "-a", ".a", "a/b", "a,b", "ä", "a" * 81])
def test_names_stay_plain(database: Database, name: str):
    with database.write() as session, pytest.raises(ConfigError, match="name is"):
        library.add_model(session, replace(entry("base"), name=name))


@pytest.mark.parametrize("folder", ["", "/etc", "../out", "a/../../b", "C:\\x", "library\\x"])
def test_a_folder_lies_below_the_workspace(database: Database, folder: str):
    with database.write() as session, pytest.raises(ConfigError, match="below the workspace"):
        library.add_model(session, replace(entry("base"), folder=folder))


def test_a_model_descends_from_one_that_is_there(database: Database):
    with database.write() as session, pytest.raises(NotFoundError):
        library.add_model(session, entry("child", parent="nobody"))


def names(nodes: list[FamilyNode] | tuple[FamilyNode, ...]) -> list[object]:
    return [[node.model.name, names(node.children)] for node in nodes]


def test_the_family_tree(database: Database):
    family = {"base": None, "one": "base", "two": "one", "other": "base", "alone": None}
    with database.write() as session:
        for name, parent in family.items():
            library.add_model(session, entry(name, parent))

    with database.read() as session:
        tree = library.family_tree(session)
        assert [row.name for row in library.models(session)] == list(family)

    assert names(tree) == [["base", [["one", [["two", []]]], ["other", []]]], ["alone", []]]


def test_a_model_with_children_stays(database: Database):
    with database.write() as session:
        library.add_model(session, entry("base"))
        library.add_model(session, entry("one", "base"))
        with pytest.raises(ConflictError, match="one was made from it"):
            library.remove_model(session, "base")
        assert library.remove_model(session, "one") == "library/one-00000000"
        library.remove_model(session, "base")
        assert library.models(session) == []


def test_a_model_that_a_run_needs_stays_until_it_is_over(database: Database):
    with database.write() as session:
        library.add_model(session, entry("base"))
        run_id = runs.queue(
            session, stage="compare", inputs={"models": "other,base"}, config={}, seed=0
        )
        with pytest.raises(ConflictError, match=f"{run_id} works with it"):
            library.remove_model(session, "base")
        runs.start(session, run_id, "1@1.00")
        runs.finish(session, run_id, "1@1.00", RunEnd(status="done"))
        library.remove_model(session, "base")


def test_a_taken_name_gets_a_number(database: Database):
    with database.write() as session:
        assert library.free_name(session, "base") == "base"
        library.add_model(session, entry("base"))
        assert library.free_name(session, "base") == "base-2"
        library.add_model(session, entry("base-2"))
        assert library.free_name(session, "base") == "base-3"
        assert library.free_name(session, "bas") == "bas"


def test_the_name_of_a_removed_version_is_not_given_again(database: Database):
    def made(session: Session, stage: str, source: str, name: str) -> None:
        run_id = runs.queue(session, stage=stage, inputs={"model": source}, config={}, seed=0)
        runs.start(session, run_id, "1@1.00")
        runs.finish(session, run_id, "1@1.00", RunEnd(status="done", outputs={"model": name}))

    with database.write() as session:
        made(session, "prepare", "./Base", "base")
        made(session, "sample", "other", "other")
        library.add_model(session, entry("base"))
        library.add_model(session, entry("one", "base"))
        made(session, "finetune", "base", "one")
        for name in ("one", "base"):
            library.remove_model(session, name)

        assert library.free_name(session, "one") == "one-2"
        # What came from elsewhere may come once more.
        assert library.free_name(session, "base") == "base"
        assert library.free_name(session, "other") == "other"


def test_rows_come_back_in_order_and_the_exam_stays_sealed(database: Database):
    bodies = [{"type": "text", "text": f"row {number}"} for number in range(2500)]
    sealed = {3, 2000}
    with database.write() as session:
        row = library.add_dataset(session, dataset(), iter(bodies), exam_positions=sealed)

    assert row.num_rows == 2500
    with database.read() as session:
        training = library.examples(session, "mine")
        exam = library.examples(session, "mine", exam=True)
        assert library.num_examples(session, "mine") == 2498
        assert library.num_examples(session, "mine", exam=True) == 2
    assert training == [body for number, body in enumerate(bodies) if number not in sealed]
    assert exam == [bodies[3], bodies[2000]]


def test_a_data_set_never_changes(database: Database):
    with database.write() as session:
        library.add_dataset(session, dataset(), [{"text": "a"}])
        again = library.add_dataset(session, dataset(), [{"text": "a"}])
        assert again.num_rows == 1
        with pytest.raises(ConflictError, match="called 'mine' already"):
            library.add_dataset(session, dataset(sha256="b" * 64), [{"text": "b"}])
        assert library.examples(session, "mine") == [{"text": "a"}]
        assert library.free_dataset_name(session, "mine") == "mine-2"


def test_a_failed_import_leaves_nothing(database: Database):
    def import_half() -> None:
        with database.write() as session:
            library.add_dataset(session, dataset(), ({"n": 1 // (1500 - n)} for n in range(3000)))

    with pytest.raises(ZeroDivisionError):
        import_half()

    with database.read() as session:
        assert library.datasets(session) == []


def test_problems_are_kept_up_to_a_hundred(database: Database):
    problems = tuple({"row": number, "key": "", "reason": "why"} for number in range(150))
    with database.write() as session:
        row = library.add_dataset(session, replace(dataset(), problems=problems), [])

    assert len(row.problems) == 100


def test_an_unknown_data_set_is_named_with_those_there_are(database: Database):
    with database.write() as session:
        library.add_dataset(session, dataset(), [])
        with pytest.raises(NotFoundError, match="There are: mine"):
            library.examples(session, "yours")

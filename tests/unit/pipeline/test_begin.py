"""Training by hand: each refusal, and what is queued."""

from dataclasses import replace

import pytest
from tests.journeys.seed import Stage, seed
from tests.journeys.texts import BASE, OTHER, V1

from amenable.pipeline import begin as begin_module
from amenable.pipeline.begin import METHODS, Method, TooFewJudgedError, begin, candidates
from amenable.pipeline.config import AlignConfig, FinetuneConfig, LoraConfig, StageConfig
from amenable.pipeline.sources import STARTER_DEMONSTRATIONS, STARTER_PROMPTS
from amenable.records.errors import AmenableError, DataError, ModelError, NotFoundError
from amenable.store import library, runs
from amenable.store.tables import ModelRow
from amenable.store.workspace import Workspace

READS_DATA = Method(
    title="Pretrain",
    sentence="A base model reads on.",
    models=("base",),
    is_model_optional=True,
    data=("conversation", "text"),
    is_data_optional=False,
)


def try_to_begin(
    workspace: Workspace, stage: str, inputs: dict[str, str], config: StageConfig | None = None
) -> str:
    config = config or (AlignConfig() if stage == "align" else FinetuneConfig())
    with workspace.database.write() as session:
        return begin(session, stage, inputs, config, 3)


def make_whole(workspace: Workspace) -> None:
    """As a version is that was trained without LoRA."""
    with workspace.database.write() as session:
        library.model(session, V1).base = None


def test_a_finetuning_is_queued_as_it_was_asked_for(workspace: Workspace):
    seed(workspace, "done")
    config = FinetuneConfig(lora=LoraConfig(rank=4))
    run_id = try_to_begin(workspace, "finetune", {"model": BASE}, config)
    with workspace.database.read() as session:
        run = runs.get(session, run_id)
    assert (run.stage, run.status, run.seed) == ("finetune", "queued", 3)
    assert run.inputs == {"model": BASE}
    assert run.config["lora"] == {"rank": 4, "alpha": 32.0}


def test_improving_records_that_it_learns_from_judgements_and_what_is_usual(workspace: Workspace):
    seed(workspace, "judged")
    run_id = try_to_begin(workspace, "align", {"model": V1})
    with workspace.database.read() as session:
        run = runs.get(session, run_id)
    assert run.inputs == {"model": V1, "comparisons": "improve"}
    assert run.config["preference"]["beta"] == 0.1  # pyright: ignore[reportIndexIssue]


def test_the_starter_set_is_there_for_what_is_begun_by_hand(workspace: Workspace):
    with workspace.database.write() as session:
        library.add_model(session, BASE_ENTRY)
    try_to_begin(workspace, "finetune", {"model": BASE})
    with workspace.database.read() as session:
        names = {row.name for row in library.datasets(session)}
    assert names == {STARTER_DEMONSTRATIONS, STARTER_PROMPTS}


BASE_ENTRY = library.ModelEntry(
    name=BASE, sha256="0" * 64, kind="base", chat_form="plain", licence="", origin="", folder="b"
)


REFUSED: list[tuple[str, dict[str, str], type[AmenableError], str]] = [
    ("prepare", {}, NotFoundError, "no way to train 'prepare'.*align, finetune"),
    ("finetune", {}, ModelError, "Finetune needs a base model: name one"),
    ("finetune", {"model": "nobody"}, NotFoundError, "There is no model 'nobody'"),
    ("finetune", {"model": V1}, ModelError, "is a version made with LoRA; Finetune takes a base"),
    ("finetune", {"model": OTHER}, ModelError, "an instruct model made by others; .* a base model"),
    ("finetune", {"model": BASE, "data": "x"}, NotFoundError, "There is no data set 'x'"),
    ("align", {"model": V1, "data": "x:2"}, DataError, "takes each data set whole"),
    ("align", {"model": BASE}, ModelError, "takes a version made with LoRA"),
    ("align", {"model": V1}, TooFewJudgedError, "is 13, but must be at least 20: judge 7 more"),
    ("reward", {"model": BASE}, TooFewJudgedError, "is 13, but must be at least 20: judge 7 more"),
]


def test_what_cannot_work_is_refused_and_nothing_is_queued(workspace: Workspace):
    seed(workspace, "judging")
    for stage, inputs, kind, said in REFUSED:
        with pytest.raises(kind, match=said):
            try_to_begin(workspace, stage, inputs)
    with workspace.database.read() as session:
        assert runs.list_runs(session, statuses=runs.OPEN) == []


def test_a_version_that_was_trained_whole_is_not_improved(workspace: Workspace):
    seed(workspace, "judged")
    make_whole(workspace)
    with pytest.raises(ModelError, match="trained whole; Improve takes a version made with LoRA"):
        try_to_begin(workspace, "align", {"model": V1})


def test_the_way_out_is_named_where_it_is_known():
    error = TooFewJudgedError(13, 20, "amenable start")
    assert str(error) == (
        "the number of judged pairs is 13, but must be at least 20: judge 7 more (amenable start)."
    )


WRONG_DATA: list[tuple[dict[str, str], str]] = [
    ({}, "Pretrain learns from a data set: name at least one"),
    ({"data": "nowhere"}, "There is no data set 'nowhere'"),
    ({"data": f"{STARTER_DEMONSTRATIONS},{STARTER_PROMPTS}"}, "demonstrations or plain text"),
]


def test_data_sets_are_checked_one_by_one(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(METHODS, "pretrain", READS_DATA)
    seed(workspace, "judged")
    for inputs, said in WRONG_DATA:
        with pytest.raises(AmenableError, match=said):
            try_to_begin(workspace, "pretrain", inputs)


def test_a_method_may_go_without_a_model(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(METHODS, "pretrain", READS_DATA)
    seed(workspace, "judged")
    run_id = try_to_begin(workspace, "pretrain", {"data": STARTER_DEMONSTRATIONS})
    with workspace.database.read() as session:
        assert runs.get(session, run_id).inputs == {"data": STARTER_DEMONSTRATIONS}


def test_named_data_takes_the_place_of_judgements(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(METHODS, "align", replace(METHODS["align"], data=("conversation",)))
    seed(workspace, "judging")
    inputs = {"model": V1, "data": STARTER_DEMONSTRATIONS}
    assert try_to_begin(workspace, "align", inputs).startswith("align-")
    with workspace.database.read() as session:
        (one,) = candidates(session, METHODS["align"])
    assert (one.name, one.num_judged, one.is_ready) == (V1, 13, True)


@pytest.mark.parametrize(("at", "is_ready"), [("judging", False), ("judged", True)])
def test_candidates_say_how_far_their_judging_is(workspace: Workspace, at: Stage, is_ready: bool):
    seed(workspace, at)
    with workspace.database.read() as session:
        assert [each.name for each in candidates(session, METHODS["finetune"])] == [BASE]
        (version,) = candidates(session, METHODS["align"])
    assert (version.num_judged >= 20, version.is_ready) == (is_ready, is_ready)


@pytest.mark.parametrize(
    ("kind", "base", "found"),
    [
        ("base", None, "base"),
        ("policy", "b", "lora"),
        ("policy", None, "whole"),
        ("instruct", None, "instruct"),
        ("reward", "b", "reward"),
    ],
)
def test_what_a_model_is_to_training(kind: str, base: str | None, found: str):
    assert begin_module.kind_of(ModelRow(kind=kind, base=base)) == found

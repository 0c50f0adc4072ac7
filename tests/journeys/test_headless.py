"""The whole loop without a person, from a tiny base to the report."""

from typing import Any

import pytest
from sqlalchemy import select
from tests.tiny import put_tiny

from amenable.pipeline import fitting
from amenable.pipeline.config import PrepareConfig
from amenable.pipeline.headless import SECONDS_OF, UnfinishedError, run_headless
from amenable.pipeline.stages import STAGES
from amenable.records.run import Run
from amenable.store import library, runs, settings
from amenable.store.tables import JudgementRow, PersonRow
from amenable.store.workspace import Workspace

KNOBS: dict[str, dict[str, Any]] = {
    "finetune": {
        "limit": 12,
        "max_tokens": 100,
        "lora": {"rank": 2},
        "fit": {"num_epochs": 1, "tokens_per_step": 300, "tokens_per_batch": 300},
    },
    "sample": {"num_prompts": 24, "max_new_tokens": 10},
    "compare": {
        "num_prompts": 8,
        "max_new_tokens": 10,
        "num_text_tokens": 256,
    },
}
METRICS = {"ends_by_itself", "constraints_met", "perplexity", "repetition", "win_rate"}
MODELS = {"base": "tiny", "policy_1": "tiny-instruct-1", "policy_2": "tiny-instruct-2"}


def small(workspace: Workspace) -> None:
    """A tiny base under a name that is looked for, and little of everything to do."""
    put_tiny(workspace)
    with workspace.database.write() as session:
        settings.put(session, fitting.KEY, KNOBS)


def start(workspace: Workspace, heard: list[Run], leave_at: int = 99) -> dict[str, Any]:
    return run_headless(
        workspace,
        STAGES,
        PrepareConfig(accept_licence=True),
        base="tiny",
        on_run=heard.append,
        should_leave=lambda: len(heard) >= leave_at,
    )


@pytest.fixture
def finished(workspace: Workspace) -> tuple[Workspace, dict[str, Any], list[Run]]:
    small(workspace)
    heard: list[Run] = []
    return workspace, start(workspace, heard), heard


def check_shape(found: dict[str, Any]) -> None:
    """The object that scripts read, field by field."""
    assert found.keys() == {"workspace", "simulated_people", "models", "seconds", "compare"}
    assert found["simulated_people"] is True
    assert found["models"] == MODELS
    assert found["seconds"].keys() == set(SECONDS_OF)
    rows = found["compare"]["rows"]
    assert {row["metric"] for row in rows} >= METRICS
    names: set[str] = set()
    for row in rows:
        assert row.keys() >= {"aspect", "metric", "unit", "n", "values", "differences"}
        for name, measured in row["values"].items():
            names.add(name)
            assert measured["low"] <= measured["value"] <= measured["high"], row["metric"]
        for difference in row["differences"]:
            assert difference.keys() >= {"model", "against", "value", "low", "high", "p"}
            assert 0 <= difference["p"] <= 1
    assert names >= set(MODELS.values())
    wins = next(row for row in rows if row["metric"] == "win_rate")
    assert wins["values"]["tiny"]["value"] == 0.5


def check_marks(workspace: Workspace, compare_id: str) -> None:
    """Whatever simulated people had a hand in says so."""
    with workspace.database.read() as session:
        judges = session.scalars(select(PersonRow)).all()
        answers = session.scalars(select(JudgementRow)).all()
        marks = {row.name: row.is_simulated for row in library.models(session)}
    assert len(judges) >= 5
    assert all(judge.is_simulated for judge in judges)
    assert len(answers) >= 20
    assert marks == {"tiny": False, "tiny-instruct-1": False, "tiny-instruct-2": True}
    report = (workspace.run_folder(compare_id) / "report.html").read_text("utf-8")
    assert "simulated" in report.lower()
    assert "http://" not in report.replace("http://www.w3.org", "")


def test_from_nothing_to_the_report(finished: tuple[Workspace, dict[str, Any], list[Run]]):
    workspace, found, heard = finished
    stages = ["prepare", "finetune", "sample", "compare", "sample", "align", "sample", "compare"]
    assert [run.stage for run in heard] == stages
    assert found["workspace"] == str(workspace.folder)
    check_shape(found)
    check_marks(workspace, heard[-1].id)

    # When all is there, the next start is ready at once and says the same.
    again: list[Run] = []
    assert start(workspace, again) == found
    assert again == []


def test_a_loop_that_was_stopped_goes_on_where_it_was(workspace: Workspace):
    small(workspace)
    # The last of these leaves in the second drawing, which no step of the loop waits for.
    for leave_at, stage in ((2, "finetune"), (1, "finetune"), (4, "sample")):
        heard: list[Run] = []
        with pytest.raises(UnfinishedError, match=f"Run {stage}-.* stopped: .*Start again"):
            start(workspace, heard, leave_at)
    heard = []
    check_shape(start(workspace, heard))
    assert [run.stage for run in heard] == ["sample", "align", "sample", "compare"]
    with workspace.database.read() as session:
        every = runs.list_runs(session, limit=100)
    assert {run.status for run in every} == {"done"}
    assert len(every) == 8


def test_too_few_pairs_end_in_one_line_and_not_in_half_a_result(workspace: Workspace):
    small(workspace)
    with workspace.database.write() as session:
        settings.put(session, fitting.KEY, KNOBS | {"sample": {"num_prompts": 3}})
    with pytest.raises(UnfinishedError, match="cannot go on by itself: No pair is left"):
        start(workspace, [])

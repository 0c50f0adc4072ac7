"""What pages say a stage costs: as planned for the loop's own base, cut as the loop is."""

import pytest
from sqlalchemy.orm import Session
from tests.unit.pipeline.test_loop import judge, to_judging

from amenable.apps.web import queries
from amenable.pipeline import costs, fitting, loop
from amenable.pipeline.config import PrepareConfig
from amenable.pipeline.costs import StageCost
from amenable.store import runs, settings
from amenable.store.database import Database
from amenable.store.runs import RunEnd

HOUR = StageCost(seconds=3600, memory_bytes=2_000_000_000)
MINUTE = StageCost(seconds=60, memory_bytes=1_000_000_000)
STAGES = ("finetune", "sample", "align", "compare")


def plan(session: Session, model: str, cost: StageCost) -> None:
    costs.keep(session, model, dict.fromkeys(STAGES, cost))


def test_planning_for_another_model_leaves_the_loop_s_costs(database: Database):
    with database.write() as session:
        loop.begin(session, PrepareConfig())
        plan(session, loop.DEFAULT_BASE, HOUR)
        plan(session, "./another", MINUTE)

        assert costs.of_loop(session) == dict.fromkeys(STAGES, HOUR)
        assert queries.cost_words(session, "finetune") == "about 60 minutes, 2.0 GB of memory"
        assert costs.is_planned(session, loop.DEFAULT_BASE)
        assert costs.is_planned(session, "./another")


def test_a_base_is_found_under_the_name_it_was_asked_for(database: Database):
    """A folder is planned for before the library has a name for it."""
    with database.write() as session:
        plan(session, "./my-model", HOUR)
        loop.begin(session, PrepareConfig(), base="./my-model")
        run = runs.claim_next(session, "1@1.00")
        assert run is not None
        runs.finish(session, run.id, "1@1.00", RunEnd(status="done", outputs={"model": "my-model"}))

        assert costs.of_loop(session)["align"] == HOUR


def test_what_is_not_planned_is_not_known(database: Database):
    with database.write() as session:
        plan(session, "./another", HOUR)

        assert costs.of_loop(session) == {}
        assert queries.cost_words(session, "finetune") == ""


def test_costs_are_those_of_the_work_that_fits_the_time(database: Database):
    with database.write() as session:
        plan(session, loop.DEFAULT_BASE, HOUR)
        whole = fitting.whole_of(session)
        knobs = {
            "finetune": {"limit": whole.demonstrations // 4},
            "sample": {"num_prompts": 100},  # of 200
            "compare": {"num_prompts": whole.evaluation},
        }
        settings.put(session, fitting.KEY, knobs)

        found = costs.of_loop(session)

    minutes = {stage: cost.seconds / 60 for stage, cost in found.items()}
    assert minutes == pytest.approx(
        {"finetune": 15, "sample": 30, "align": 30, "compare": 60}, rel=0.01
    )
    assert {cost.memory_bytes for cost in found.values()} == {HOUR.memory_bytes}


def test_improve_costs_by_the_votes_there_are(database: Database):
    with database.write() as session:
        to_judging(session)
        plan(session, loop.DEFAULT_BASE, HOUR)
        before = costs.of_loop(session)["align"].seconds
        judge(session, 20)  # of 200 planned for
        found = costs.of_loop(session)

    assert before == HOUR.seconds
    assert found["align"].seconds == pytest.approx(360)
    assert found["compare"] == HOUR

from dataclasses import asdict

import pytest

from amenable.pipeline import fitting, loop
from amenable.pipeline.config import FinetuneConfig, PrepareConfig
from amenable.pipeline.fitting import LEAST, Amounts, Costs, fit
from amenable.records.errors import ConfigError
from amenable.store import runs
from amenable.store.database import Database
from amenable.store.runs import RunEnd

WHOLE = Amounts(demonstrations=600, prompts=200, evaluation=150)
HOUR = Costs(finetune=1200, sample=600, align=600, compare=1200)


def test_enough_time_changes_nothing():
    fitted = fit(HOUR, 60, WHOLE)

    assert (fitted.knobs, fitted.costs, fitted.fits) == ({}, HOUR, True)


def test_half_the_time_halves_every_part():
    fitted = fit(HOUR, 30, WHOLE)

    assert fitted.knobs["finetune"] == {"limit": 300}
    assert fitted.knobs["sample"] == {"num_prompts": 100}
    assert fitted.knobs["compare"]["num_prompts"] == 75
    assert fitted.costs.total == pytest.approx(1800)


def test_a_part_at_its_least_leaves_less_to_the_others():
    # An eighth of 3600 s is 450 s. Prompts and evaluation stay at a fifth: 2400 s / 5 = 480 s is
    # too much already, so demonstrations go to their least too, a tenth: 120 s.
    fitted = fit(HOUR, 7.5, WHOLE)

    assert fitted.knobs["finetune"]["limit"] == LEAST.demonstrations
    assert fitted.knobs["sample"]["num_prompts"] == LEAST.prompts
    assert fitted.costs.total == pytest.approx(600)
    assert not fitted.fits


def test_what_a_floor_takes_the_free_part_gives():
    # 12 minutes are 720 s, a fifth of the work; floors of a fifth just hold.
    assert fit(HOUR, 12, WHOLE).fits
    # 11 minutes are 660 s: 480 s for the floors leave 180 s of 1200 s, which is 90 of 600.
    fitted = fit(HOUR, 11, WHOLE)
    assert fitted.knobs["finetune"]["limit"] == 90
    assert fitted.fits


@pytest.mark.parametrize("minutes", [0, -3])
def test_no_time_at_all_is_refused(minutes: float):
    with pytest.raises(ConfigError, match="minutes"):
        fit(HOUR, minutes, WHOLE)


def test_the_loop_takes_the_knobs_that_were_kept(database: Database):
    with database.write() as session:
        fitting.keep(session, fit(HOUR, 30, WHOLE))
        first = loop.begin(session, PrepareConfig(), base="base")
        runs.start(session, first, "me")
        runs.finish(session, first, "me", RunEnd(status="done", outputs={"model": "base"}))
        second = loop.advance(session)
        assert second is not None
        assert runs.get(session, second).config == asdict(FinetuneConfig(limit=300))


def test_the_whole_work_comes_back(database: Database):
    with database.write() as session:
        fitting.keep(session, fit(HOUR, 30, WHOLE))
        fitting.keep(session, None)

        assert fitting.kept_knobs(session, "finetune") == {}


def test_the_starter_set_counts_before_it_is_installed(database: Database):
    with database.read() as session:
        whole = fitting.whole_of(session)

    assert whole.demonstrations >= 600
    assert whole.evaluation >= 150

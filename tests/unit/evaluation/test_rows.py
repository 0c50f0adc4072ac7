"""Marks into rows."""

import pytest

from amenable.evaluation.metrics import METRICS
from amenable.evaluation.model_spec import ModelSpec
from amenable.evaluation.rows import family_rows, metric_row, score_rows, worst_families
from amenable.records.errors import DataError
from amenable.records.score import Score

SPECS = [
    ModelSpec(name="base", kind="base", form="plain"),
    ModelSpec(name="v1", kind="policy", form="gemma", parent="base"),
]


def scores(metric: str, *values: float, family: str = "plan") -> list[Score]:
    return [
        Score(metric=metric, key=f"{family}-{at}", family=family, value=value)
        for at, value in enumerate(values)
    ]


def test_a_row_has_values_differences_and_n():
    found = {
        "base": scores("constraints_met", 0, 0, 0, 1),
        "v1": scores("constraints_met", 1, 1, 0, 1),
    }

    (row,) = score_rows(found, SPECS, seed=1, metrics=["constraints_met"])

    assert (row.metric, row.unit, row.n, row.better) == ("constraints_met", "share", 4, "higher")
    assert (row.values["base"].value, row.values["v1"].value) == (0.25, 0.75)
    difference = row.difference("v1", "base")
    assert difference is not None
    # Two prompts differ, both for the new one: exact p = 2 * 1/4.
    assert (difference.value, difference.p) == (0.5, 0.5)


def test_the_order_of_prompts_changes_no_row():
    values = [0.1, 0.9, 0.4, 0.4, 0.0, 0.7]
    found = {
        "base": scores("repetition", *values),
        "v1": scores("repetition", *values[::-1]),
    }
    shuffled = {name: each[3:] + each[:3] for name, each in found.items()}

    assert score_rows(found, SPECS, 1, ["repetition"]) == score_rows(
        shuffled, SPECS, 1, ["repetition"]
    )


def test_families_have_rows_of_their_own_and_the_worst_is_named():
    found = {
        name: scores("constraints_met", *plan) + scores("constraints_met", *code, family="code")
        for name, plan, code in (("base", (0, 0, 1), (0, 0)), ("v1", (1, 1, 1), (0, 1)))
    }

    rows = family_rows(found, SPECS, seed=1)
    worst = worst_families(rows)

    assert [(row.metric, row.n, row.aspect) for row in rows] == [
        ("constraints_met/code", 2, "task versatility"),
        ("constraints_met/plan", 3, "task versatility"),
    ]
    assert (worst["v1"].family, worst["v1"].measured.value, worst["v1"].n) == ("code", 0.5, 2)


def test_marks_on_different_prompts_are_refused():
    marks = {"base": {"a": 1.0}, "v1": {"b": 1.0}}

    with pytest.raises(DataError, match="same prompts"):
        metric_row(METRICS["constraints_met"], marks, SPECS, seed=1)


def test_one_prompt_says_nothing_of_a_mean_and_nothing_at_all_is_no_row():
    one = {"base": {"a": 0.2}, "v1": {"a": 0.3}}

    assert metric_row(METRICS["repetition"], one, SPECS, seed=1) is None
    assert metric_row(METRICS["constraints_met"], {"base": {}, "v1": {}}, SPECS, seed=1) is None

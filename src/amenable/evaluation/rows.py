"""Marks of many models into rows: values with intervals, paired differences, Holm within a row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from amenable.evaluation.contrasts import contrasts
from amenable.evaluation.metrics import COMPARED, METRICS, Metric
from amenable.evaluation.model_spec import ModelSpec
from amenable.evaluation.paired import (
    Marks,
    adjusted,
    mean_difference,
    measured_mean,
    measured_share,
    share_difference,
)
from amenable.records.errors import DataError
from amenable.records.measurement import Difference, Measured, Row
from amenable.records.score import Score
from amenable.records.seeds import seed_for

FEW_PROMPTS = 2
"""Fewer say nothing about the spread of a number."""

ScoresByModel = Mapping[str, Sequence[Score]]


@dataclass(frozen=True, slots=True)
class WorstFamily:
    """Where a model did least well; picked after the fact, so its true value is likely better."""

    family: str
    measured: Measured
    n: int


def metric_row(
    metric: Metric, marks: Mapping[str, Marks], specs: Sequence[ModelSpec], seed: int
) -> Row | None:
    """One row over the prompts that all its models have; None if there are too few to say."""
    keys = _same_keys(metric.name, marks)
    if not keys or (len(keys) < FEW_PROMPTS and not metric.is_yes_or_no):
        return None
    draws = seed_for(seed, metric.name)
    values = {
        name: measured_share(mine) if metric.is_yes_or_no else measured_mean(mine, draws)
        for name, mine in marks.items()
    }
    differences: list[Difference] = []
    wanted = contrasts(specs, {name: each.value for name, each in values.items()}, metric.better)
    for contrast in wanted:
        model, against = marks[contrast.model], marks[contrast.against]
        differences.append(
            share_difference(contrast, model, against)
            if metric.is_yes_or_no
            else mean_difference(contrast, model, against, draws)
        )
    return Row(
        aspect=metric.aspect,
        metric=metric.name,
        unit=metric.unit,
        n=len(keys),
        values=values,
        differences=adjusted(differences),
        better=metric.better,
        title=metric.title,
        about=metric.about,
    )


def score_rows(
    scores: ScoresByModel,
    specs: Sequence[ModelSpec],
    seed: int,
    metrics: Sequence[str] = COMPARED,
) -> list[Row]:
    found = (metric_row(METRICS[name], _marks(scores, name), specs, seed) for name in metrics)
    return [row for row in found if row is not None]


def family_rows(
    scores: ScoresByModel, specs: Sequence[ModelSpec], seed: int, metric: str = "constraints_met"
) -> list[Row]:
    """One row a family, named metric/family."""
    families = sorted({s.family for each in scores.values() for s in each if s.metric == metric})
    rows: list[Row] = []
    for family in families:
        within = {
            name: [score for score in each if score.family == family]
            for name, each in scores.items()
        }
        row = metric_row(METRICS[metric], _marks(within, metric), specs, seed)
        if row is not None:
            name = family or "other"
            rows.append(
                replace(
                    row,
                    metric=f"{metric}/{name}",
                    aspect="task versatility",
                    title=name.replace("_", " ").capitalize(),
                )
            )
    return rows


def across_rows(rows: Sequence[Row]) -> list[Row]:
    """P values as they count when what changed is picked out of several rows (Holm).

    The intervals stay as they are, each for its own question.
    """
    flat = adjusted([each for row in rows for each in row.differences])
    found: list[Row] = []
    for row in rows:
        mine, flat = flat[: len(row.differences)], flat[len(row.differences) :]
        found.append(replace(row, differences=mine))
    return found


def worst_families(rows: Sequence[Row]) -> dict[str, WorstFamily]:
    """By model, the family with the lowest value; the first by name where several are as low."""
    worst: dict[str, WorstFamily] = {}
    for row in rows:
        for name, found in row.values.items():
            if name not in worst or found.value < worst[name].measured.value:
                worst[name] = WorstFamily(row.metric.partition("/")[2], found, row.n)
    return worst


def _marks(scores: ScoresByModel, metric: str) -> dict[str, dict[str, float]]:
    return {
        name: {score.key: score.value for score in each if score.metric == metric}
        for name, each in scores.items()
    }


def _same_keys(metric: str, marks: Mapping[str, Marks]) -> set[str]:
    """A paired comparison needs every model's mark on every prompt."""
    keys = [set(each) for each in marks.values()]
    if any(each != keys[0] for each in keys):
        raise DataError(f"Not all models were marked on the same prompts for {metric}.")
    return keys[0] if keys else set()

"""One value and one paired difference at a time, by the method that fits the kind of mark."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from amenable.evaluation.contrasts import Contrast
from amenable.records.measurement import Difference, Measured
from amenable.stats.intervals import Interval, bootstrap_mean, wilson
from amenable.stats.significance import Pair, holm, mcnemar_exact, paired_bootstrap

Marks = Mapping[str, float]
"""One model's marks of one metric, by prompt."""


@dataclass(frozen=True, slots=True)
class Table:
    """Yes and no of two models on the same prompts."""

    both: int
    only_model: int
    only_against: int
    neither: int

    @property
    def n(self) -> int:
        return self.both + self.only_model + self.only_against + self.neither


def measured_share(marks: Marks) -> Measured:
    """Yes and no: Wilson's interval."""
    return _measured(wilson(sum(mark == 1 for mark in marks.values()), len(marks)))


def measured_mean(marks: Marks, seed: int) -> Measured:
    """Numbers: bootstrap over prompts, sorted, so that their order changes nothing."""
    return _measured(bootstrap_mean([marks[key] for key in sorted(marks)], seed=seed))


def share_difference(contrast: Contrast, model: Marks, against: Marks) -> Difference:
    """Yes and no: exact McNemar test, and Newcombe's paired interval, honest for few prompts."""
    table = _table(model, against)
    low, high = paired_share_interval(table)
    return Difference(
        model=contrast.model,
        against=contrast.against,
        value=(table.only_model - table.only_against) / table.n,
        low=low,
        high=high,
        p=mcnemar_exact(only_first=table.only_against, only_second=table.only_model),
    )


def mean_difference(contrast: Contrast, model: Marks, against: Marks, seed: int) -> Difference:
    """Numbers: paired bootstrap over prompts."""
    pairs = [Pair(key, against[key], model[key]) for key in sorted(model)]
    found = paired_bootstrap(pairs, seed=seed)
    return Difference(
        model=contrast.model,
        against=contrast.against,
        value=found.interval.estimate,
        low=found.interval.low,
        high=found.interval.high,
        p=found.p_value,
    )


def adjusted(differences: Sequence[Difference]) -> tuple[Difference, ...]:
    """P values as they count when a row asks several questions at once (Holm)."""
    p_values = holm([difference.p for difference in differences])
    return tuple(
        replace(difference, p=p) for difference, p in zip(differences, p_values, strict=True)
    )


def paired_share_interval(table: Table) -> tuple[float, float]:
    """95 % interval of a difference of paired shares, squares of Wilson's ends added.

    Newcombe, Statistics in Medicine 17 (1998) 2635, method 10. Never of no width, unlike a
    bootstrap when all prompts agree.

    >>> low, high = paired_share_interval(Table(36, 12, 2, 0))  # the paper's table II, first row
    >>> round(low, 4), round(high, 4)
    (0.0569, 0.3404)
    """
    model = wilson(table.both + table.only_model, table.n)
    against = wilson(table.both + table.only_against, table.n)
    shared = _correlation(table)
    difference = (table.only_model - table.only_against) / table.n
    below = _added(model.estimate - model.low, against.high - against.estimate, shared)
    above = _added(model.high - model.estimate, against.estimate - against.low, shared)
    return max(-1.0, difference - below), min(1.0, difference + above)


def _added(first: float, second: float, correlation: float) -> float:
    squares = first * first - 2 * correlation * first * second + second * second
    return math.sqrt(max(0.0, squares))


def _correlation(table: Table) -> float:
    """Phi, drawn towards zero where positive, as the method has it; 0 where it is not defined."""
    cross = table.both * table.neither - table.only_model * table.only_against
    if cross > 0:
        cross = max(cross - table.n / 2, 0)
    margins = (
        (table.both + table.only_model)
        * (table.only_against + table.neither)
        * (table.both + table.only_against)
        * (table.only_model + table.neither)
    )
    return cross / math.sqrt(margins) if margins else 0.0


def _table(model: Marks, against: Marks) -> Table:
    seen = [(model[key] == 1, against[key] == 1) for key in model]
    return Table(
        both=seen.count((True, True)),
        only_model=seen.count((True, False)),
        only_against=seen.count((False, True)),
        neither=seen.count((False, False)),
    )


def _measured(interval: Interval) -> Measured:
    return Measured(value=interval.estimate, low=interval.low, high=interval.high)

"""A believable comparison, typed as the real one."""

import math
from collections.abc import Mapping

from tests.journeys.texts import ANSWERS, BASE, BASE_TALK, FAMILIES, HELPED, OTHER, V1, V2

from amenable.records.measurement import Difference, Measured, Row
from amenable.reports.result import (
    ComparedModel,
    Kind,
    Lineage,
    Result,
    Settings,
    ShownExample,
    ShownReply,
    Turn,
    VotesTaught,
    WorstFamily,
)
from amenable.starter import load as starter


def _measured(value: float, n: int) -> Measured:
    half = 1.96 * math.sqrt(max(value * (1 - value), 0.01) / n)
    return Measured(value=value, low=max(0.0, value - half), high=min(1.0, value + half))


def _share_row(aspect: str, metric: str, n: int, values: Mapping[str, float]) -> Row:
    names = list(values)
    first, last = names[0], names[-1]
    gap = values[last] - values[first]
    return Row(
        aspect=aspect,
        metric=metric,
        unit="share",
        n=n,
        values={name: _measured(value, n) for name, value in values.items()},
        differences=(
            Difference(
                model=last, against=first, value=gap, low=gap - 0.08, high=gap + 0.08,
                p=0.0004 if abs(gap) > 0.08 else 0.31,
            ),
        ),
        better="lower" if metric == "repetition" else "higher",
    )  # fmt: skip


def _rows(models: tuple[str, ...]) -> tuple[Row, ...]:
    table = {
        BASE: (0.05, 0.12, 0.31, 0.62, 0.5), HELPED: (0.41, 0.22, 0.36, 0.3, 0.5),
        V1: (0.97, 0.58, 0.71, 0.04, 0.86), V2: (0.98, 0.63, 0.74, 0.03, 0.9),
        OTHER: (0.99, 0.55, 0.69, 0.05, 0.84),
    }  # fmt: skip
    names = [BASE, HELPED, OTHER, *models[1:]]
    pick = [{name: table[name][column] for name in names} for column in range(5)]
    perplexity = {BASE: 31.2, V1: 32.6, V2: 32.9}
    return (
        Row(
            aspect="primary function", metric="perplexity", unit="perplexity", n=20_000,
            values={
                name: Measured(value=perplexity[name], low=perplexity[name] * 0.96,
                               high=perplexity[name] * 1.05)
                for name in models
            },
            differences=(
                Difference(model=models[-1], against=BASE, value=1.4, low=1.1, high=1.8, p=0.0002),
            ),
            better="lower",
            note="Only models with the same tokens are comparable here.",
        ),
        _share_row("primary function", "instructions_met", 150, pick[2]),
        _share_row("user interaction", "ends_by_itself", 60, pick[0]),
        _share_row("content generation", "constraints_met", 150, pick[1]),
        *(
            _share_row("task versatility", f"constraints_met/{family}", n,
                       {BASE: share * 0.2, HELPED: share * 0.35, models[-1]: share})
            for family, (share, n) in FAMILIES.items()
        ),
        _share_row("content generation", "repetition", 150, pick[3]),
        _share_row("content generation", "win_rate", 150, pick[4]),
    )  # fmt: skip


def result_of(models: tuple[str, ...], *, is_simulated: bool) -> Result:
    """What a comparison of these models would have found."""
    kinds: dict[str, Kind] = {
        BASE: "base", HELPED: "helped", OTHER: "instruct", V1: "policy", V2: "policy",
    }  # fmt: skip
    names = [BASE, HELPED, OTHER, *models[1:]]
    newest = models[-1]
    prompts = starter.evaluation_prompts()
    taught = VotesTaught(
        before=V1, after=V2, num_votes=27, is_simulated=is_simulated,
        rows=(
            _share_row("content generation", "lists", 150, {V1: 0.31, V2: 0.24}),
            _share_row("user interaction", "ends_by_itself", 60, {V1: 0.97, V2: 0.98}),
        ),
        says="27 votes moved version 2 towards fewer lists; the rest could be chance.",
    )  # fmt: skip
    example = ShownExample(
        rule="the request on which the models differ most",
        key=prompts[0].key, family=prompts[0].family,
        prompt=tuple(Turn(role=m.role, content=m.text) for m in prompts[0].conversation.messages),
        checks=("at most 40 words",),
        replies={
            BASE: ShownReply(text=BASE_TALK[0], stop_reason="length", checks_met=(False,)),
            newest: ShownReply(text=ANSWERS[0], stop_reason="stop", checks_met=(True,)),
        },
    )  # fmt: skip
    facts = {
        BASE: {"learned from": "web text, by its publisher", "objective": "continue text"},
        newest: {"learned from": "642 demonstrations, then 27 votes", "objective": "do as asked"},
    }
    return Result(
        models=tuple(
            ComparedModel(name=name, kind=kinds[name], form="gemma", parent=None, sha256="0" * 64)
            for name in names
        ),
        rows=_rows(models),
        headline=f"{newest} does what was asked in 63 % of 150 requests, the base in 22 % at best",
        says=("It ends by itself in 98 % of replies; the base in 5 %.",
              "Plain text surprises it 5 % more than before: the price of its manners."),
        examples=(example,),
        lineage={
            name: Lineage(parent=None, kind=kinds[name], facts=facts[name])
            for name in (BASE, newest)
        },
        worst_family={newest: WorstFamily(family="arithmetic", measured=_measured(0.13, 15), n=15)},
        training=(),
        votes_taught=taught if V2 in models else None,
        simulated_people=is_simulated,
        settings=Settings(
            measured_at="2026-11-22", seed=7, num_prompts=150, prompts_origin="starter",
            prompts_licence="CC0", texts_origin="starter", decoding={"temperature": "0"},
        ),
    )  # fmt: skip

"""The rows of a comparison, ready to be drawn: words, intervals on one scale, chance."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from amenable.apps.web import words
from amenable.apps.web.pictures import Bar, bar
from amenable.evaluation.metrics import METRICS
from amenable.records.measurement import Difference, Row
from amenable.reports import numbers
from amenable.reports.result import ComparedModel, Result, ShownExample, VotesTaught

VOICES = {"base": "base", "helped": "base", "policy": "instruct", "instruct": "other"}
ASPECTS = {
    "primary function": "What each is for",
    "training method": "How each was made",
    "task versatility": "How many kinds of task it can do",
    "user interaction": "How it deals with you",
    "content generation": "What it writes",
}
FAMILY_METRIC = "constraints_met"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    label: str
    voice: str
    is_helped: bool
    text: str
    range: str
    bar: Bar


@dataclass(frozen=True, slots=True, kw_only=True)
class DifferenceView:
    text: str
    verdict: str
    could_be_chance: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricView:
    name: str
    about: str
    n: int
    better: str
    note: str
    lines: Sequence[Line]
    differences: Sequence[DifferenceView]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing about how the models were made, side by side."""

    name: str
    values: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    models: Sequence[ComparedModel]
    voices: Sequence[str]
    facts: Sequence[Fact]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    name: str
    metrics: Sequence[MetricView]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    name: str
    n: int
    is_worst: bool
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True, kw_only=True)
class Families:
    says: str
    rows: Sequence[Family]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    says: str
    is_simulated: bool
    metrics: Sequence[MetricView]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleReply:
    model: str
    voice: str
    text: str
    facts: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleView:
    rule: str
    asked: str
    checks: Sequence[str]
    replies: Sequence[ExampleReply]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportView:
    headline: str
    says: Sequence[str]
    groups: Sequence[Group]
    lineage: Lineage
    families: Families | None
    taught: Taught | None
    examples: Sequence[ExampleView]
    is_simulated: bool


Kinds = Mapping[str, str]
"""The kind of each compared model, by name."""


def report_view(result: Result) -> ReportView:
    kinds = {model.name: model.kind for model in result.models}
    subject = next(
        (model.name for model in reversed(result.models) if model.kind == "policy"),
        result.models[-1].name,
    )
    return ReportView(
        headline=result.headline,
        says=result.says,
        groups=_groups(result.rows, kinds),
        lineage=_lineage(result),
        families=_families(result, kinds, subject),
        taught=_taught(result.votes_taught, kinds) if result.votes_taught else None,
        examples=[_example(each, kinds) for each in result.examples],
        is_simulated=result.simulated_people,
    )


def lines(row: Row, kinds: Kinds, only: Iterable[str] | None = None) -> list[Line]:
    """One bar a model, all on one scale: shares from 0 to 1, others from 0 to the highest."""
    highest = max((each.high for each in row.values.values()), default=1.0)
    end = 1.0 if row.unit == "share" else highest * 1.05
    names = [name for name in row.values if only is None or name in only]
    return [
        Line(
            label=name,
            voice=VOICES.get(kinds.get(name, ""), "other"),
            is_helped=kinds.get(name) == "helped",
            text=numbers.value_text(row.values[name].value, row.unit),
            range=_range(row, name),
            bar=bar(
                row.values[name].value,
                row.values[name].low,
                row.values[name].high,
                start=0.0,
                end=end,
            ),
        )
        for name in names
    ]


def _range(row: Row, name: str) -> str:
    low, high = row.values[name].low, row.values[name].high
    texts = [numbers.value_text(each, row.unit).removesuffix(" %") for each in (low, high)]
    return f"{texts[0]} to {texts[1]}"


def difference_view(row: Row, found: Difference) -> DifferenceView:
    """One paired difference in words; one that could be chance says so."""
    amount = numbers.signed(found.value, row.unit)
    unit = numbers.UNIT_WORDS.get(row.unit, "")
    spread = numbers.interval_text(found.low, found.high, row.unit)
    return DifferenceView(
        text=f"{found.model} against {found.against}: {amount} {unit}".rstrip()
        + f" (95 % interval {spread}, {numbers.p_text(found.p)})",
        verdict=numbers.verdict(found, row.better),
        could_be_chance=found.could_be_chance,
    )


def metric_view(row: Row, kinds: Kinds) -> MetricView:
    known = METRICS.get(row.metric)
    return MetricView(
        name=known.title if known else words.plain(row.metric).capitalize(),
        about=known.about if known else "",
        n=row.n,
        better=row.better,
        note=row.note,
        lines=lines(row, kinds),
        differences=[difference_view(row, each) for each in row.differences],
    )


def _groups(rows: Sequence[Row], kinds: Kinds) -> list[Group]:
    by_aspect: dict[str, list[MetricView]] = {}
    for row in rows:
        if "/" not in row.metric:
            by_aspect.setdefault(row.aspect, []).append(metric_view(row, kinds))
    return [
        Group(name=ASPECTS.get(aspect, aspect.capitalize()), metrics=metrics)
        for aspect, metrics in by_aspect.items()
    ]


def _lineage(result: Result) -> Lineage:
    models = [model for model in result.models if model.name in result.lineage]
    facts = dict.fromkeys(fact for model in models for fact in result.lineage[model.name].facts)
    return Lineage(
        models=models,
        voices=[VOICES.get(model.kind, "other") for model in models],
        facts=[
            Fact(
                name=fact,
                values=[result.lineage[model.name].facts.get(fact, "–") for model in models],
            )
            for fact in facts
        ],
    )


def family_rows(result: Result, subject: str) -> list[Row]:
    """Requests met by kind of task, best first."""
    found = [row for row in result.families(FAMILY_METRIC) if subject in row.values]
    return sorted(found, key=lambda row: -row.values[subject].value)


def family_of(row: Row) -> str:
    return row.metric.partition("/")[2]


def _families(result: Result, kinds: Kinds, subject: str) -> Families | None:
    found = family_rows(result, subject)
    if not found:
        return None
    bases = [model.name for model in result.models if model.kind == "base"][:1]
    named = result.worst_family.get(subject)
    worst = named.family if named else family_of(found[-1])
    return Families(
        says=f"Requests of which {subject} met every instruction, best first. Weakest: "
        f"{words.plain(worst)}. Wide spans: so few prompts of a kind tell little.",
        rows=[
            Family(
                name=words.plain(family_of(row)),
                n=row.n,
                is_worst=family_of(row) == worst,
                lines=lines(row, kinds, {*bases, subject}),
            )
            for row in found
        ],
    )


def _taught(taught: VotesTaught, kinds: Kinds) -> Taught:
    return Taught(
        says=taught.says,
        is_simulated=taught.is_simulated,
        metrics=[metric_view(row, kinds) for row in taught.rows],
    )


def _example(shown: ShownExample, kinds: Kinds) -> ExampleView:
    return ExampleView(
        rule=shown.rule,
        asked=shown.prompt[-1].content,
        checks=shown.checks,
        replies=[
            ExampleReply(
                model=name,
                voice=VOICES.get(kinds.get(name, ""), "other"),
                text=reply.text,
                facts=_reply_facts(reply.stop_reason, reply.checks_met),
            )
            for name, reply in shown.replies.items()
        ],
    )


def _reply_facts(stop_reason: str, checks_met: Sequence[bool]) -> str:
    ends = "ends by itself" if stop_reason == "stop" else "cut off"
    if not checks_met:
        return ends
    return f"{ends} · {sum(checks_met)} of {len(checks_met)} instructions met"

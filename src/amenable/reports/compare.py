"""A comparison's result as one self-contained page: styles and pictures inside, nothing fetched."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from amenable.records.measurement import Difference, Row
from amenable.reports import figures
from amenable.reports.numbers import interval_text, p_text, signed, value_text, verdict
from amenable.reports.result import Frame, Kind, Result, Training, VotesTaught
from amenable.reports.words import MAIN, subject_of

OPENING = (MAIN, "ends_by_itself", "perplexity")
INSTEAD = "repetition"  # where perplexity is not known
ASPECT_WORDS = {
    "primary function": "What each is for",
    "user interaction": "How it deals with you",
    "content generation": "What it writes",
}
KIND_WORDS: dict[Kind, str] = {
    "base": "base model, as it is",
    "helped": "the same base, shown three examples and stopped by texts",
    "policy": "instruct model made here",
    "instruct": "ready-made instruct model",
}
BAR_WIDTH, BAR_REACH = 132, 60
FEW_POINTS = 2


@dataclass(frozen=True, slots=True)
class ModelView:
    name: str
    kind: Kind
    says: str


@dataclass(frozen=True, slots=True)
class Bar:
    """An interval around zero in the units of a small drawing."""

    low: float
    value: float
    high: float


@dataclass(frozen=True, slots=True)
class ValueView:
    kind: Kind
    text: str
    interval: str


@dataclass(frozen=True, slots=True)
class DifferenceView:
    model: str
    kind: Kind
    against: str
    against_kind: Kind
    bar: Bar
    text: str
    interval: str
    p: str
    verdict: str
    is_chance: bool


@dataclass(frozen=True, slots=True)
class RowView:
    title: str
    about: str
    note: str
    n: int
    better: str
    values: Sequence[ValueView | None]
    differences: Sequence[DifferenceView]


@dataclass(frozen=True, slots=True)
class Aspect:
    title: str
    rows: Sequence[RowView]


@dataclass(frozen=True, slots=True)
class TaughtView:
    taught: VotesTaught
    rows: Sequence[RowView]


@dataclass(frozen=True, slots=True)
class FilmCell:
    reply: str
    end: str


@dataclass(frozen=True, slots=True)
class TrainingView:
    title: str
    curve: Markup | None
    steps: Sequence[int]
    film: Sequence[tuple[str, Sequence[FilmCell]]]


@dataclass(frozen=True, slots=True)
class FamiliesView:
    picture: Markup
    says: str


def comparison_page(result: Result) -> str:
    """The whole report as HTML."""
    kinds: dict[str, Kind] = {model.name: model.kind for model in result.models}
    models = [ModelView(each.name, each.kind, KIND_WORDS[each.kind]) for each in result.models]
    return (
        _templates()
        .get_template("compare.html")
        .render(
            result=result,
            models=models,
            opening=_opening(result, kinds),
            aspects=_aspects(result, kinds),
            families=_families(result, kinds),
            taught=_taught(result.votes_taught, kinds),
            trainings=[_training(training, at) for at, training in enumerate(result.training)],
            num_prompts=_num_prompts(result),
        )
    )


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("amenable.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["tight"] = _tight
    return environment


def _tight(text: str) -> str:
    """A number and its percent sign stay on one line."""
    return text.replace(" %", "\u00a0%")


def _num_prompts(result: Result) -> int:
    return max((row.n for row in result.rows if row.unit == "share"), default=0)


def _opening(result: Result, kinds: dict[str, Kind]) -> Markup | None:
    rows = [row for metric in OPENING if (row := result.row(metric)) is not None]
    if len(rows) < len(OPENING) and (instead := result.row(INSTEAD)) is not None:
        rows.append(instead)
    panels = [figures.Panel(row.title, row) for row in rows]
    return figures.opening(panels, kinds) if panels else None


def _aspects(result: Result, kinds: dict[str, Kind]) -> list[Aspect]:
    rows = [row for row in result.rows if "/" not in row.metric]
    plain = result.row("perplexity")
    if plain is not None:
        # Bits per byte say something new only where perplexities cannot be compared.
        same = plain.values.keys()
        rows = [row for row in rows if row.metric != "bits_per_byte" or row.values.keys() != same]
    return [
        Aspect(
            ASPECT_WORDS.get(aspect, aspect.capitalize()),
            [_row(row, list(kinds), kinds) for row in within],
        )
        for aspect, within in groupby(rows, key=lambda row: row.aspect)
    ]


def _row(row: Row, names: Sequence[str], kinds: dict[str, Kind]) -> RowView:
    reach = max((abs(end) for each in row.differences for end in (each.low, each.high)), default=0)
    return RowView(
        title=row.title or row.metric,
        about=row.about,
        note=row.note,
        n=row.n,
        better=row.better,
        values=[_value(row, name, kinds) for name in names],
        differences=[_difference(row, each, kinds, reach) for each in row.differences],
    )


def _value(row: Row, name: str, kinds: dict[str, Kind]) -> ValueView | None:
    found = row.values.get(name)
    if found is None:
        return None
    low, high = value_text(found.low, row.unit), value_text(found.high, row.unit)
    return ValueView(
        kinds[name],
        value_text(found.value, row.unit),
        f"{low} to {high}".replace(" %", ""),
    )


def _difference(
    row: Row, found: Difference, kinds: dict[str, Kind], reach: float
) -> DifferenceView:
    scale = BAR_REACH / reach if reach else 0.0
    middle = BAR_WIDTH / 2
    return DifferenceView(
        model=found.model,
        kind=kinds[found.model],
        against=found.against,
        against_kind=kinds[found.against],
        bar=Bar(*(round(middle + scale * x, 1) for x in (found.low, found.value, found.high))),
        text=signed(found.value, row.unit),
        interval=interval_text(found.low, found.high, row.unit),
        p=p_text(found.p),
        verdict=verdict(found, row.better),
        is_chance=found.could_be_chance,
    )


def _families(result: Result, kinds: dict[str, Kind]) -> FamiliesView | None:
    """The newest version beside what it is measured against, family by family."""
    rows = result.families(MAIN)
    main = result.row(MAIN)
    if not rows or main is None:
        return None
    subject = subject_of(main, kinds)
    against = next((each.against for each in main.differences if each.model == subject), None)
    if against is None:
        return None
    worst = result.worst_family[subject]
    name = worst.family.replace("_", " ")
    low, high = (value_text(end, "share") for end in (worst.measured.low, worst.measured.high))
    says = (
        f"Weakest family of {subject}: {name}, {value_text(worst.measured.value, 'share')} of "
        f"{worst.n} requests (95 % interval {low} to {high}). The number of requests stands in "
        "brackets; with so few in a family, most gaps between single families could be chance."
    )
    picture = figures.families(rows, against, subject, (kinds[against], kinds[subject]))
    return FamiliesView(picture, says)


def _taught(taught: VotesTaught | None, kinds: dict[str, Kind]) -> TaughtView | None:
    if taught is None:
        return None
    names = [taught.before, taught.after]
    return TaughtView(taught, [_row(row, names, kinds) for row in taught.rows])


def _training(training: Training, at: int) -> TrainingView:
    label = f"Loss of each step ({training.stage}, run {training.run_id})"
    picture = (
        figures.curve(training.loss, f"curve{at}", label)
        if len(training.loss) >= FEW_POINTS
        else None
    )
    steps = sorted({frame.step for frame in training.film})
    return TrainingView(
        title=training.model,
        curve=picture,
        steps=steps,
        film=list(_film(training.film, steps)),
    )


def _film(frames: Sequence[Frame], steps: Sequence[int]) -> Iterator[tuple[str, list[FilmCell]]]:
    """One line a prompt, one cell a step; a step without that prompt stays empty."""
    at = {(frame.prompt, frame.step): frame for frame in frames}
    for prompt in dict.fromkeys(frame.prompt for frame in frames):
        yield prompt, [_cell(at.get((prompt, step))) for step in steps]


def _cell(frame: Frame | None) -> FilmCell:
    if frame is None:
        return FilmCell("", "")
    end = "" if frame.log_p_end is None else f"{frame.log_p_end:.2f}".replace("-", "−")
    return FilmCell(frame.reply, end)

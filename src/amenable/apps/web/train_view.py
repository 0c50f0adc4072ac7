"""The form of a training method as its page shows it: fields, what was typed, what is missing."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from amenable.apps.web import queries, words
from amenable.pipeline import begin, form
from amenable.pipeline.begin import A_MODEL, Method
from amenable.pipeline.form import Entry, FormError, Group, Knob
from amenable.pipeline.loop import DEFAULT_SEED
from amenable.pipeline.packages import INSTALL, missing_for_training

CONFIG, WEIGHT = "config.", "weight."
"""Begins the name of every field that is a knob."""
LABELS = {"model": "Model", "data": "Data sets", "seed": "Seed"}
"""Fields that every method may have beside its knobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """A form as it was sent, or as it stands at first."""

    model: str = ""
    data: tuple[str, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict[str, str])
    """How often an epoch sees each data set; once where nothing stands."""
    seed: str = str(DEFAULT_SEED)
    knobs: Mapping[str, str] = field(default_factory=dict[str, str])
    """By their names within the config."""

    @property
    def inputs(self) -> dict[str, str]:
        """Of the run."""
        data = {"data": ",".join(self._weighed(name) for name in self.data)} if self.data else {}
        return ({"model": self.model} if self.model else {}) | data

    def _weighed(self, name: str) -> str:
        weight = self.weights.get(name, "").strip()
        return name if weight in ("", "1") else f"{name}:{weight}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldView:
    """A knob in its form; `value` is what was typed."""

    name: str
    label: str
    sentence: str
    entry: Entry
    options: Sequence[str]
    value: str
    usual: str
    is_optional: bool
    least: str
    step: str
    problem: str

    @property
    def id(self) -> str:
        return self.name.replace(".", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionView:
    """Knobs that are folded away until somebody wants them."""

    title: str
    fields: Sequence[FieldView]
    is_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceView:
    """A model or a data set that can be chosen."""

    name: str
    note: str
    is_ready: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingView:
    """What has to be there first, and where to get it; without a link, by a command."""

    text: str
    link: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodView:
    stage: str
    title: str
    sentence: str
    takes: str
    """Which kind of model, in words."""
    models: Sequence[ChoiceView]
    is_model_optional: bool
    data: Sequence[ChoiceView]
    is_data_optional: bool
    is_mixture: bool
    missing: MissingView | None
    cost: str
    """With what is usual, for the base of the loop; "" while it is not known."""


@dataclass(frozen=True, slots=True)
class ProblemView:
    """What cannot be taken, in words, and the field beside which it stands; "" without one."""

    text: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FormView:
    """`wrong` says what cannot be taken, by the names of fields."""

    typed: Typed
    fields: Sequence[FieldView]
    sections: Sequence[SectionView]
    wrong: Mapping[str, str]

    @property
    def problems(self) -> list[ProblemView]:
        """All of them, in the order of the page."""
        knobs = [*self.fields, *(each for section in self.sections for each in section.fields)]
        ids = {"model": "model", "data": "data"} | {each.name: each.id for each in knobs}
        ids |= {"seed": "seed"} | {name: "" for name in self.wrong if name not in (*ids, "seed")}
        return [ProblemView(self.wrong[name], ids[name]) for name in ids if name in self.wrong]


def method_view(session: Session, stage: str) -> MethodView:
    wanted = begin.method(stage)
    found = begin.candidates(session, wanted)
    data = [
        ChoiceView(name=each.name, note=f"{words.thousands(each.num_rows)} {each.kind_words}")
        for each in queries.datasets(session)
        if each.type in wanted.data and each.num_rows > each.num_exam
    ]
    return MethodView(
        stage=stage,
        title=wanted.title,
        sentence=wanted.sentence,
        takes=f"It takes {begin.either(wanted.models)}.",
        models=[
            ChoiceView(name=each.name, note=_judged(each, wanted), is_ready=each.is_ready)
            for each in found
        ],
        is_model_optional=wanted.is_model_optional,
        data=data,
        is_data_optional=wanted.is_data_optional,
        is_mixture=wanted.is_mixture,
        missing=_missing_program()
        or _missing_model(wanted, found)
        or _missing_data(wanted, is_there=bool(data)),
        cost=queries.cost_words(session, stage),
    )


def _judged(candidate: begin.Candidate, wanted: Method) -> str:
    if not wanted.num_judged:
        return ""
    if candidate.num_judged < wanted.num_judged:
        return f"{candidate.num_judged} of {wanted.num_judged} judged"
    return f"{candidate.num_judged} judged"


def _missing_program() -> MissingView | None:
    missing = missing_for_training()
    if not missing:
        return None
    names = ", ".join(missing)
    return MissingView(
        text=f"Training needs {names}, which this machine does not have. "
        f"Install with: {INSTALL}, then start Amenable again."
    )


def _missing_model(wanted: Method, found: Sequence[begin.Candidate]) -> MissingView | None:
    if wanted.is_model_optional or any(each.is_ready for each in found):
        return None
    if found:
        best = max(found, key=lambda each: each.num_judged)
        more = wanted.num_judged - best.num_judged
        whose, has = (
            (" of a version’s own replies", f"{best.name} has")
            if wanted.is_own_judged
            else ("", "So far there are")
        )
        return MissingView(
            text=f"It needs {wanted.num_judged} judged pairs{whose}. "
            f"{has} {best.num_judged}: judge {more} more.",
            link="/judge",
            label="Judge",
        )
    if "base" in wanted.models:
        text = "There is no base model here yet. The loop begins with one."
        return MissingView(text=text, link="/", label="See how far it is")
    kind = A_MODEL[wanted.models[0]].removeprefix("a ")
    text = f"There is no {kind} here yet. Finetuning makes one."
    return MissingView(text=text, link="/train/finetune", label="Finetune")


def _missing_data(wanted: Method, *, is_there: bool) -> MissingView | None:
    if wanted.is_data_optional or is_there:
        return None
    needed = " or ".join(words.TYPE_WORDS[each] for each in wanted.data)
    return MissingView(
        text=f"It learns from {needed}, and no data set here holds any.",
        link="/data#add",
        label="Add a file",
    )


def first_typed(view: MethodView, kind: type[Any], model: str) -> Typed:
    """The defaults, with the model that was come from, else the newest that is ready."""
    ready = [each.name for each in view.models if each.is_ready]
    if model not in ready:
        model = ready[-1] if ready and not view.is_model_optional else ""
    return Typed(model=model, knobs=form.typed(kind()))


def knob_problems(kind: type[Any], error: FormError) -> dict[str, str]:
    """A sentence each, by the names of fields."""
    labels = {knob.name: knob.label for knob in form.knobs(kind).knobs()}
    return {
        CONFIG + name: f"{labels.get(name) or words.shorten(name)} must {must}."
        for name, must in error.problems.items()
    }


def form_view(
    wanted: Method, kind: type[Any], typed: Typed, problems: Mapping[str, str]
) -> FormView:
    """Main knobs first, the others by their groups; a method that names none shows its own."""
    root = form.knobs(kind)
    own = tuple(each.name for each in root.parts if isinstance(each, Knob))
    main = wanted.main or own
    by_name = {knob.name: knob for knob in root.knobs()}
    return FormView(
        typed=typed,
        fields=[_field(by_name[name], typed, problems) for name in main],
        sections=list(_sections(root, main, typed, problems)),
        wrong=problems,
    )


def _sections(
    root: Group, main: Sequence[str], typed: Typed, problems: Mapping[str, str]
) -> Iterator[SectionView]:
    groups = list(root.groups())
    for group in [*groups[1:], groups[0]]:  # what belongs to no group comes last
        knobs = [each for each in group.parts if isinstance(each, Knob) and each.name not in main]
        if knobs:
            fields = [_field(knob, typed, problems) for knob in knobs]
            yield SectionView(
                title=group.sentence.rstrip(".") or "Everything else",
                fields=fields,
                is_open=any(each.problem or each.value != each.usual for each in fields),
            )


def _field(knob: Knob, typed: Typed, problems: Mapping[str, str]) -> FieldView:
    name = CONFIG + knob.name
    return FieldView(
        name=name,
        label=knob.label,
        sentence=knob.sentence,
        entry=knob.entry,
        options=knob.options,
        value=typed.knobs.get(knob.name, "")[: form.MOST_LETTERS],
        usual=form.shown(knob.default),
        is_optional=knob.is_optional,
        least=form.shown(knob.least),
        step=_step(knob),
        problem=problems.get(name, ""),
    )


def _step(knob: Knob) -> str:
    """What an arrow key adds: one, or one in the second figure of the default."""
    if knob.entry == "integer":
        return "1"
    if not knob.default or not isinstance(knob.default, float):
        return "any"
    return form.shown(float(f"1e{math.floor(math.log10(abs(knob.default))) - 1}"))

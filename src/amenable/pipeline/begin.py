"""Training by hand, from the terminal or a page: what can be begun, and what must hold before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy.orm import Session

from amenable.feedback.export import comparisons, thumbs
from amenable.pipeline.config import (
    LEAST_COMPARISONS,
    AlignConfig,
    FinetuneConfig,
    StageConfig,
    recorded,
)
from amenable.pipeline.loop import ENOUGH_TO_IMPROVE
from amenable.pipeline.packages import needs_four_bits
from amenable.pipeline.sources import add_starter, check_holds, mixture_of, mixture_words, type_of
from amenable.records.errors import ConfigError, DataError, ModelError, NotFoundError
from amenable.store import library, runs
from amenable.store.tables import ModelRow

ModelKind = Literal["base", "lora", "whole", "instruct", "reward"]
"""What a model is to training: a base, a version made with LoRA, a version trained whole…"""
A_MODEL: dict[ModelKind, str] = {
    "base": "a base model",
    "lora": "a version made with LoRA",
    "whole": "a version that was trained whole",
    "instruct": "an instruct model made by others",
    "reward": "a reward model",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A stage that a person can begin by hand, and what it takes."""

    title: str
    sentence: str
    """What it does for me."""
    models: tuple[ModelKind, ...]
    is_model_optional: bool = False
    data: tuple[str, ...]
    """Types of rows of the data sets it takes."""
    is_data_optional: bool = True
    is_mixture: bool = False
    """Whether a data set may have a weight: NAME:0.5."""
    num_judged: int = 0
    """So many judged pairs it needs, where no data set is named."""
    is_own_judged: bool = True
    """Whether they have to be of the model's own replies."""
    main: tuple[str, ...] = ()
    """Knobs that a form shows first."""
    inputs: Mapping[str, str] = field(default_factory=dict[str, str])
    """What every run of it has beside what was chosen."""


METHODS: dict[str, Method] = {
    "pretrain": Method(
        title="Pretrain",
        sentence="Plain text makes a base model: a new, small one, or one that goes on learning.",
        models=("base",),
        is_model_optional=True,
        data=("text",),
        is_data_optional=False,
        main=("name", "shape.layers", "shape.hidden", "fit.num_epochs", "fit.learning_rate"),
    ),
    "finetune": Method(
        title="Finetune",
        sentence="A base model learns from demonstrations to do what it is asked.",
        models=("base",),
        data=("conversation",),
        is_mixture=True,
        main=("method", "fit.num_epochs", "fit.learning_rate", "limit"),
    ),
    "align": Method(
        title="Improve",
        sentence="A version learns from your choices between its replies, by one of six losses.",
        models=("lora",),
        data=("preference", "ranking", "rated"),
        num_judged=ENOUGH_TO_IMPROVE,
        main=("preference.loss", "preference.beta", "fit.num_epochs", "fit.learning_rate"),
        inputs={"comparisons": "improve"},
    ),
    "reward": Method(
        title="Reward model",
        sentence="A model learns to predict which of two replies your people choose.",
        models=("lora", "base", "whole", "instruct"),
        data=("preference", "ranking"),
        num_judged=LEAST_COMPARISONS,
        is_own_judged=False,
        main=("num_heads", "held_out_share", "fit.num_epochs", "fit.learning_rate"),
    ),
}


class TooFewJudgedError(ConfigError):
    """Judging more is the way out."""

    def __init__(self, judged: int, needed: int, how: str = "") -> None:
        self.judged, self.needed = judged, needed
        where = f" ({how})" if how else ""
        super().__init__(
            "the number of judged pairs",
            judged,
            must=f"be at least {needed}: judge {needed - judged} more{where}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model of the kind that a method takes, and how many pairs of its replies are judged."""

    name: str
    num_judged: int
    is_ready: bool


def method(stage: str) -> Method:
    if stage not in METHODS:
        raise NotFoundError("way to train", stage, known=METHODS)
    return METHODS[stage]


def begin(
    session: Session, stage: str, inputs: Mapping[str, str], config: StageConfig, seed: int
) -> str:
    """Queue a run that a person asks for; what it could not work with is refused here.

    `inputs` holds the name of a model ("model"), those of data sets by commas ("data"), or both.
    Where the method mixes them, a data set may have a weight: NAME:0.5.
    """
    wanted = method(stage)
    check_model(session, wanted, inputs, config)
    check_data(session, wanted, inputs, config)
    check_packages(config)
    add_starter(session)
    return runs.queue(
        session,
        stage=stage,
        inputs=inputs_of(wanted, inputs),
        config=recorded(config),
        seed=seed,
    )


def inputs_of(wanted: Method, inputs: Mapping[str, str]) -> dict[str, str]:
    """Of a run, from what was chosen: the same choice is the same inputs, however it was typed."""
    named = {"data": mixture_words(_mixture(inputs))} if "data" in inputs else {}
    return {**inputs, **named, **wanted.inputs}


def check_model(
    session: Session, wanted: Method, inputs: Mapping[str, str], config: StageConfig | None = None
) -> None:
    """There, of the right kind, and judged enough where it is judgements that teach it."""
    if "model" not in inputs:
        if not wanted.is_model_optional:
            raise ModelError(f"{wanted.title} needs {either(wanted.models)}: name one.")
        return
    row = library.speaker(session, inputs["model"])
    kind = kind_of(row)
    if kind not in wanted.models:
        raise ModelError(
            f"{row.name} is {A_MODEL[kind]}; {wanted.title} takes {either(wanted.models)}."
        )
    if "data" in inputs:
        return
    judged = _num_judged(session, wanted, row)
    if isinstance(config, AlignConfig) and config.preference.loss == "kto":
        judged += len(thumbs(session, model_sha256=row.sha256))
    if judged < wanted.num_judged:
        raise TooFewJudgedError(judged, wanted.num_judged)


def check_data(
    session: Session, wanted: Method, inputs: Mapping[str, str], config: StageConfig | None = None
) -> None:
    """There, each of a type that the method reads, with rows left to train on."""
    if "data" not in inputs:
        if not wanted.is_data_optional:
            raise DataError(f"{wanted.title} learns from a data set: name at least one.")
        return
    for name, weight in _mixture(inputs).items():
        if weight != 1 and not wanted.is_mixture:
            raise DataError(f"{wanted.title} takes each data set whole, without a weight.")
        check_holds(session, name, *_row_types(wanted, config))


def check_packages(config: StageConfig | None) -> None:
    """What a single way of training needs, beside what all of them do."""
    if isinstance(config, FinetuneConfig) and config.method == "qlora":
        needs_four_bits()


def _row_types(wanted: Method, config: StageConfig | None) -> tuple[str, ...]:
    """Replies judged by themselves teach by KTO alone, and a ranking by every other loss."""
    if isinstance(config, AlignConfig):
        useless = "ranking" if config.preference.loss == "kto" else "rated"
        return tuple(each for each in wanted.data if each != useless)
    return wanted.data


def _mixture(inputs: Mapping[str, str]) -> dict[str, float]:
    return mixture_of(inputs["data"].split(","))


def candidates(session: Session, wanted: Method) -> list[Candidate]:
    """Models that the method takes, oldest first."""
    found: list[Candidate] = []
    has_data = any(type_of(session, row.name) in wanted.data for row in library.datasets(session))
    for row in library.models(session):
        if kind_of(row) in wanted.models:
            judged = _num_judged(session, wanted, row)
            alone = len(thumbs(session, model_sha256=row.sha256)) if "rated" in wanted.data else 0
            is_ready = judged + alone >= wanted.num_judged or has_data
            found.append(Candidate(name=row.name, num_judged=judged, is_ready=is_ready))
    return found


def kind_of(row: ModelRow) -> ModelKind:
    if row.kind == "policy":
        return "whole" if row.base is None else "lora"
    return "base" if row.kind == "base" else "reward" if row.kind == library.REWARD else "instruct"


def _num_judged(session: Session, wanted: Method, row: ModelRow) -> int:
    if not wanted.num_judged:
        return 0
    of_model = row.sha256 if wanted.is_own_judged else None
    return len(comparisons(session, "improve", model_sha256=of_model))


def either(kinds: Sequence[ModelKind]) -> str:
    *others, last = (A_MODEL[kind] for kind in kinds)
    return f"{', '.join(others)} or {last}" if others else last

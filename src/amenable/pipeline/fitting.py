"""Fits the loop's work to the time there is: fewer demonstrations, prompts and measurements."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from amenable.pipeline.config import CompareConfig, FinetuneConfig, SampleConfig
from amenable.pipeline.sources import STARTER_DEMONSTRATIONS, Sources
from amenable.records.errors import ConfigError
from amenable.starter import load as starter
from amenable.store import library, settings

KEY = "loop.knobs"
COMPARISONS = 1.75
"""The loop compares twice: three voices after finetuning, four (as planned) at its end."""
LEAST_TEXT_TOKENS = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """How much of each there is to work through."""

    demonstrations: int
    prompts: int
    evaluation: int


LEAST = Amounts(demonstrations=60, prompts=40, evaluation=30)
"""With fewer, nothing is learned, there is nothing to judge, or nothing can be told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds that the whole work of each stage takes here."""

    finetune: float
    sample: float
    align: float
    compare: float

    @property
    def total(self) -> float:
        return self.finetune + self.sample + self.align + self.compare


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Knobs by stage (only those that differ from the defaults), and what the work costs then."""

    knobs: Mapping[str, Mapping[str, int]]
    costs: Costs
    fits: bool
    """Whether that is within the time: there is a least amount of work."""


def fit(costs: Costs, minutes: float, whole: Amounts) -> Fitted:
    """Cut every part by the same share; a part that is at its least leaves the rest to others.

    >>> hour = Costs(finetune=1200, sample=600, align=600, compare=1200)
    >>> whole = Amounts(demonstrations=600, prompts=200, evaluation=150)
    >>> fit(hour, 30, whole).knobs["finetune"], fit(hour, 60, whole).knobs
    ({'limit': 300}, {})
    """
    if minutes <= 0:
        raise ConfigError("minutes", minutes, must="be above 0")
    seconds = 60 * minutes
    price = {
        "demonstrations": costs.finetune,
        "prompts": costs.sample + costs.align,
        "evaluation": costs.compare,
    }
    shares = dict.fromkeys(price, 1.0)
    if costs.total > seconds:
        floors = {
            name: min(1.0, getattr(LEAST, name) / max(1, getattr(whole, name))) for name in price
        }
        shares = _shares(price, floors, seconds)
    fitted = Costs(
        finetune=costs.finetune * shares["demonstrations"],
        sample=costs.sample * shares["prompts"],
        align=costs.align * shares["prompts"],
        compare=costs.compare * shares["evaluation"],
    )
    return Fitted(knobs=_knobs(shares, whole), costs=fitted, fits=fitted.total <= seconds * 1.001)


def _shares(
    price: Mapping[str, float], floors: Mapping[str, float], seconds: float
) -> dict[str, float]:
    fixed: dict[str, float] = {}
    while len(fixed) < len(price):
        rest = seconds - sum(price[name] * share for name, share in fixed.items())
        free = sum(price[name] for name in price if name not in fixed)
        share = min(1.0, max(0.0, rest / free)) if free else 1.0
        low = {name: floors[name] for name in price if name not in fixed and share < floors[name]}
        if not low:
            return fixed | {name: share for name in price if name not in fixed}
        fixed |= low
    return fixed


def _knobs(shares: Mapping[str, float], whole: Amounts) -> dict[str, dict[str, int]]:
    knobs: dict[str, dict[str, int]] = {}
    if shares["demonstrations"] < 1:
        limit = max(1, round(shares["demonstrations"] * whole.demonstrations))
        knobs["finetune"] = {"limit": FinetuneConfig(limit=limit).limit}
    if shares["prompts"] < 1:
        num = max(1, round(shares["prompts"] * whole.prompts))
        knobs["sample"] = {"num_prompts": SampleConfig(num_prompts=num).num_prompts}
    if shares["evaluation"] < 1:
        num = max(2, round(shares["evaluation"] * whole.evaluation))
        texts = round(shares["evaluation"] * CompareConfig().num_text_tokens)
        knobs["compare"] = {
            "num_prompts": num,
            "num_text_tokens": max(LEAST_TEXT_TOKENS, texts),
        }
    return knobs


def whole_of(session: Session) -> Amounts:
    """What this workspace has; before the starter set is installed, what that will bring."""
    names = Sources.of(session).demonstrations
    there = {row.name for row in library.datasets(session)}
    num = sum(library.num_examples(session, name) for name in names if name in there)
    if STARTER_DEMONSTRATIONS in names and STARTER_DEMONSTRATIONS not in there:
        num += len(starter.demonstrations())
    return Amounts(
        demonstrations=num,
        prompts=SampleConfig().num_prompts,
        evaluation=len(starter.evaluation_prompts()),
    )


def keep(session: Session, fitted: Fitted | None) -> None:
    """From now on the loop's runs take these knobs; None goes back to the whole work."""
    knobs = {} if fitted is None else {stage: dict(each) for stage, each in fitted.knobs.items()}
    settings.put(session, KEY, knobs)


def kept_knobs(session: Session, stage: str) -> dict[str, Any]:
    """What was kept for a stage of the loop."""
    return dict(settings.get(session, KEY, {}).get(stage, {}))

"""What a comparison leaves behind (result.json), typed: reports are made from it alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from amenable.records.errors import DataError
from amenable.records.measurement import Measured, Row

RESULT_FILE, REPORT_FILE = "result.json", "report.html"

Kind = Literal["base", "helped", "policy", "instruct"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedModel:
    name: str
    kind: Kind
    form: str
    parent: str | None
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownReply:
    text: str
    stop_reason: str
    checks_met: tuple[bool, ...]
    """One a check of the prompt, in its order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownExample:
    """A prompt with every model's reply; `rule` says why this one is shown."""

    rule: str
    key: str
    family: str
    prompt: tuple[Turn, ...]
    checks: tuple[str, ...]
    """The checkable instructions, in words."""
    replies: Mapping[str, ShownReply]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a model comes from: facts in words, by what they are about."""

    parent: str | None
    kind: Kind
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    step: int
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One picture of the film strip: how the model replied after so many steps."""

    step: int
    prompt: str
    reply: str
    log_p_end: float | None = None
    """Log-probability of the end-of-turn marker where a reply should end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """The run that made one of the models."""

    model: str
    stage: str
    run_id: str
    loss: tuple[CurvePoint, ...]
    film: tuple[Frame, ...] = ()
    kinds_taught: tuple[str, ...] | None = None
    """Kinds of check that its demonstrations asked for; None where nobody wrote them down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstFamily:
    family: str
    measured: Measured
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VotesTaught:
    """What changed from one version to the next, which people's votes made."""

    before: str
    after: str
    num_votes: int
    is_simulated: bool
    rows: tuple[Row, ...]
    says: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a sceptic asks for."""

    measured_at: str
    seed: int
    num_prompts: int
    prompts_origin: str
    prompts_licence: str
    texts_origin: str
    decoding: Mapping[str, str]
    kinds_tested: tuple[str, ...] = ()
    kinds_also_taught: tuple[str, ...] = ()
    """Kinds of check that demonstrations of the training data also asked for."""
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    stop_texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    models: tuple[ComparedModel, ...]
    rows: tuple[Row, ...]
    headline: str
    says: tuple[str, ...]
    """The other main findings, a sentence each."""
    examples: tuple[ShownExample, ...]
    lineage: Mapping[str, Lineage]
    worst_family: Mapping[str, WorstFamily]
    training: tuple[Training, ...]
    votes_taught: VotesTaught | None
    simulated_people: bool
    settings: Settings

    def row(self, metric: str) -> Row | None:
        return next((row for row in self.rows if row.metric == metric), None)

    def families(self, metric: str) -> list[Row]:
        return [row for row in self.rows if row.metric.startswith(f"{metric}/")]

    def model(self, name: str) -> ComparedModel:
        return next(model for model in self.models if model.name == name)


_RESULT = TypeAdapter(Result)


def to_json(result: Result) -> bytes:
    return _RESULT.dump_json(result, indent=1) + b"\n"


def from_json(data: bytes) -> Result:
    try:
        return _RESULT.validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"This is no result of a comparison: at {place or 'its start'}, {first['msg']}. "
            "Compare the models again."
        ) from error

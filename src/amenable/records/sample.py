"""A reply with its provenance: which model, which settings, which seed, and why it stopped."""

from dataclasses import dataclass
from typing import Literal

from amenable.records.conversation import Conversation

StopReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model by name and by the sha256 of its content; the name may change, the content not."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class DatasetRef:
    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSettings:
    """How a reply is drawn; temperature 0 is greedy."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    """Keep only the k likeliest tokens; 0 keeps all."""
    stop: tuple[str, ...] = ()
    """Texts that end a reply, besides the model's own end-of-turn token; not part of the reply."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    prompt: Conversation
    reply: str
    model: ModelRef
    settings: SamplingSettings
    seed: int
    stop_reason: StopReason
    num_tokens: int
    """Tokens of the reply, without the end-of-turn token."""

    @property
    def ends_by_itself(self) -> bool:
        return self.stop_reason == "stop"

"""A reply with its provenance: which model, which settings, which seed, and why it stopped."""

import math
from dataclasses import dataclass
from typing import Literal

from amenable.records.conversation import Conversation
from amenable.records.errors import ConfigError

StopReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model by name and by the sha256 of its content; the name may change, the content not."""

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

    def __post_init__(self) -> None:
        """Else top_p 0 would leave no token to draw, and a negative temperature the unlikeliest."""
        if self.max_new_tokens < 1:
            raise ConfigError("max_new_tokens", self.max_new_tokens, must="be at least 1")
        if not 0 <= self.temperature < math.inf:
            raise ConfigError("temperature", self.temperature, must="be at least 0")
        if not 0 < self.top_p <= 1:
            raise ConfigError("top_p", self.top_p, must="lie in (0, 1]")
        if self.top_k < 0:
            raise ConfigError("top_k", self.top_k, must="be at least 0")


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

"""The shapes of the OpenAI-compatible address; every field is bounded."""

import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from amenable.generation.engine import Request
from amenable.records.conversation import Conversation
from amenable.records.errors import ConfigError
from amenable.records.sample import Sample, SamplingSettings

MAX_TEXT, MAX_MESSAGES, MAX_NEW_TOKENS = 100_000, 200, 4096
Text = Annotated[str, Field(max_length=MAX_TEXT)]
Stop = Annotated[str, Field(min_length=1, max_length=100)]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class WireMessage(BaseModel):
    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "user", "assistant"]
    content: Text


class ChatRequest(BaseModel):
    """What is understood; other fields of the OpenAI form are ignored, tools and images refused."""

    model_config = ConfigDict(extra="ignore")
    model: Name
    messages: Annotated[list[WireMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool = False
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    max_tokens: Annotated[int | None, Field(ge=1, le=MAX_NEW_TOKENS)] = None
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=MAX_NEW_TOKENS)] = None
    stop: Stop | Annotated[list[Stop], Field(max_length=8)] | None = None
    seed: Annotated[int | None, Field(ge=0, lt=2**32)] = None
    n: Annotated[int, Field(ge=1, le=1)] = 1

    def conversation(self) -> Conversation:
        found = read_conversation(self.messages)
        if found.messages[-1].role != "user":
            raise ConfigError("messages", "ended by the assistant", must="end with the user")
        return found

    def to_request(self, seed: int) -> Request:
        """`seed` is drawn by the caller where the request names none."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        settings = SamplingSettings(
            max_new_tokens=self.max_completion_tokens or self.max_tokens or 256,
            temperature=self.temperature,
            top_p=self.top_p,
            stop=stop,
        )
        return Request(
            prompt=self.conversation(),
            model=self.model,
            settings=settings,
            seed=seed if self.seed is None else self.seed,
        )


class TokensRequest(BaseModel):
    """A conversation may end with the assistant: so it stands until the user goes on."""

    model: Name
    messages: Annotated[list[WireMessage], Field(min_length=1, max_length=MAX_MESSAGES)]


def read_conversation(messages: list[WireMessage]) -> Conversation:
    try:
        return Conversation.from_json([message.model_dump() for message in messages])
    except ValueError as error:
        raise ConfigError("messages", "out of order", must=f"be in turn ({error})") from error


FINISH = {"stop": "stop", "length": "length", "cancelled": "stop"}


def provenance(sample: Sample, seconds: float) -> dict[str, object]:
    """What the pages store of a reply beside its text."""
    return {
        "model_sha256": sample.model.sha256,
        "seed": sample.seed,
        "settings": {
            "max_new_tokens": sample.settings.max_new_tokens,
            "temperature": sample.settings.temperature,
            "top_p": sample.settings.top_p,
            "top_k": sample.settings.top_k,
            "stop": list(sample.settings.stop),
        },
        "stop_reason": sample.stop_reason,
        "num_tokens": sample.num_tokens,
        "seconds": round(seconds, 3),
    }


def event(data: object) -> str:
    """One server-sent event; JSON on one line, so that no text can break out of it."""
    return f"data: {json.dumps(data)}\n\n"

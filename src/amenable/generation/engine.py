"""What every engine offers, and the scripted one: prompts in, samples out, without torch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from amenable.records.conversation import Conversation
from amenable.records.errors import NotFoundError
from amenable.records.sample import ModelRef, Sample, SamplingSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One reply wanted; `seed` decides every draw of it."""

    prompt: Conversation
    model: str
    settings: SamplingSettings
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TokenPiece:
    """One token as the model sees it; `is_structure` marks what the chat form added."""

    id: int
    text: str
    is_structure: bool


def never() -> bool:
    return False


class Engine(Protocol):
    def models(self) -> Sequence[ModelRef]: ...

    def generate(
        self,
        requests: Sequence[Request],
        on_sample: Callable[[int, Sample], None] | None = None,
    ) -> list[Sample]:
        """Samples in the order of `requests`; `on_sample(position, sample)` hears of each."""
        ...

    def stream(
        self, request: Request, is_cancelled: Callable[[], bool] = never
    ) -> Iterator[str | Sample]:
        """Pieces of the reply as they come, and at last the whole sample (also when cancelled)."""
        ...

    def tokens(self, model: str, prompt: Conversation) -> list[TokenPiece]:
        """What the model sees of this prompt."""
        ...


class ScriptedEngine:
    """Replies from a list, word by word: for tests, demos and trying the pages without a model.

    >>> engine = ScriptedEngine({"echo": ["Hello there."]})
    >>> prompt = Conversation.of(("user", "Hi"))
    >>> request = Request(prompt=prompt, model="echo", settings=SamplingSettings())
    >>> engine.generate([request])[0].reply
    'Hello there.'
    """

    def __init__(self, replies: dict[str, Sequence[str]]) -> None:
        self._replies = replies

    def models(self) -> list[ModelRef]:
        return [ModelRef(name, "0" * 64) for name in self._replies]

    def generate(
        self,
        requests: Sequence[Request],
        on_sample: Callable[[int, Sample], None] | None = None,
    ) -> list[Sample]:
        samples: list[Sample] = []
        for position, request in enumerate(requests):
            *_, sample = self.stream(request)
            assert isinstance(sample, Sample)
            samples.append(sample)
            if on_sample:
                on_sample(position, sample)
        return samples

    def stream(
        self, request: Request, is_cancelled: Callable[[], bool] = never
    ) -> Iterator[str | Sample]:
        if request.model not in self._replies:
            raise NotFoundError("model", request.model, known=self._replies)
        replies = self._replies[request.model]
        words = replies[request.seed % len(replies)].split(" ")
        limit = request.settings.max_new_tokens
        reply, reason = "", "stop" if len(words) <= limit else "length"
        for position, word in enumerate(words[:limit]):
            if is_cancelled():
                reason = "cancelled"
                break
            piece = word if position == 0 else " " + word
            reply += piece
            yield piece
        yield Sample(
            prompt=request.prompt,
            reply=reply,
            model=ModelRef(request.model, "0" * 64),
            settings=request.settings,
            seed=request.seed,
            stop_reason=reason,
            num_tokens=len(reply.split()),
        )

    def tokens(self, model: str, prompt: Conversation) -> list[TokenPiece]:
        if model not in self._replies:
            raise NotFoundError("model", model, known=self._replies)
        pieces: list[TokenPiece] = []
        for message in prompt.messages:
            pieces.append(TokenPiece(1, f"<{message.role}>", is_structure=True))
            pieces += [
                TokenPiece(2, word + " ", is_structure=False) for word in message.text.split()
            ]
        return pieces

"""Several engines as one: each request goes to the engine that has its model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from amenable.generation.engine import Engine, Request, TokenPiece, never
from amenable.records.conversation import Conversation
from amenable.records.errors import NotFoundError
from amenable.records.sample import ModelRef, Sample


@dataclass(frozen=True, slots=True)
class Place:
    """Where a model is found: an engine, and the model's name there."""

    engine: Engine
    name: str


class RoutedEngine:
    """`places` by the name under which a model is asked for here.

    >>> from amenable.generation.engine import ScriptedEngine
    >>> engine = RoutedEngine({"guest": Place(ScriptedEngine({"echo": ["Hello."]}), "echo")})
    >>> engine.models()[0].name
    'guest'
    """

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places = dict(places)

    def _place(self, name: str) -> Place:
        if name not in self._places:
            raise NotFoundError("model", name, known=self._places)
        return self._places[name]

    def models(self) -> list[ModelRef]:
        found: list[ModelRef] = []
        for name, place in self._places.items():
            theirs = {ref.name: ref for ref in place.engine.models()}
            # Ollama answers to a name alone, but lists it with its tag.
            ref = theirs.get(place.name) or theirs.get(f"{place.name}:latest")
            if ref is None:
                raise NotFoundError("model", place.name, known=theirs)
            found.append(replace(ref, name=name))
        return found

    def generate(
        self,
        requests: Sequence[Request],
        on_sample: Callable[[int, Sample], None] | None = None,
    ) -> list[Sample]:
        samples: dict[int, Sample] = {}
        for name in dict.fromkeys(request.model for request in requests):
            place = self._place(name)
            mine = [at for at, request in enumerate(requests) if request.model == name]

            def heard(
                position: int, sample: Sample, mine: list[int] = mine, name: str = name
            ) -> None:
                samples[mine[position]] = _renamed(sample, name)
                if on_sample:
                    on_sample(mine[position], samples[mine[position]])

            place.engine.generate([replace(requests[at], model=place.name) for at in mine], heard)
        return [samples[at] for at in range(len(requests))]

    def stream(
        self, request: Request, is_cancelled: Callable[[], bool] = never
    ) -> Iterator[str | Sample]:
        place = self._place(request.model)
        for piece in place.engine.stream(replace(request, model=place.name), is_cancelled):
            yield piece if isinstance(piece, str) else _renamed(piece, request.model)

    def tokens(self, model: str, prompt: Conversation) -> list[TokenPiece]:
        place = self._place(model)
        return place.engine.tokens(place.name, prompt)


def _renamed(sample: Sample, name: str) -> Sample:
    return replace(sample, model=replace(sample.model, name=name))

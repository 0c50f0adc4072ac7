"""An engine at an OpenAI-compatible address: our own serving process, or anybody else's."""

import json
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar, cast

import httpx2

from amenable.generation.engine import Request, TokenPiece, never
from amenable.records.conversation import Conversation
from amenable.records.errors import AmenableError, ModelError, NotFoundError
from amenable.records.sample import ModelRef, Sample, StopReason

UNKNOWN_SHA256 = "0" * 64  # what others serve cannot be hashed from outside
TIMEOUT = httpx2.Timeout(connect=5.0, read=300.0, write=30.0, pool=5.0)
RETRY_SECONDS = 0.2
T = TypeVar("T")


class RemoteEngine:
    """`key` goes as a bearer token; seeds and settings travel with every request.

    While nobody listens at the address, it is tried again for `patience` seconds: a process of our
    own that starts, or starts again, answers soon.
    """

    def __init__(self, base_url: str, key: str = "", *, patience: float = 0.0) -> None:
        self._patience = patience
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(base_url=base_url, headers=headers, timeout=TIMEOUT)

    def close(self) -> None:
        self._client.close()

    def models(self) -> list[ModelRef]:
        found = self._ask("GET", "/v1/models")
        with _understood():
            return [ModelRef(str(each["id"]), UNKNOWN_SHA256) for each in found["data"]]

    def generate(
        self,
        requests: Sequence[Request],
        on_sample: Callable[[int, Sample], None] | None = None,
    ) -> list[Sample]:
        samples: list[Sample] = []
        for position, request in enumerate(requests):
            body = self._ask("POST", "/v1/chat/completions", _body(request, stream=False))
            samples.append(_whole(request, body))
            if on_sample:
                on_sample(position, samples[-1])
        return samples

    def stream(
        self, request: Request, is_cancelled: Callable[[], bool] = never
    ) -> Iterator[str | Sample]:
        text, finish, last = "", "cancelled", dict[str, Any]()
        for chunk in self._events(_body(request, stream=True)):
            if is_cancelled():
                finish = "cancelled"
                break
            if not chunk.get("choices"):
                continue  # others send their counts in a chunk of its own
            choice = chunk["choices"][0]
            piece = choice["delta"].get("content") or ""
            if piece:
                text += piece
                yield piece
            if choice.get("finish_reason"):
                finish, last = choice["finish_reason"], chunk
        yield _sample(request, text, finish, last)

    def _events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        with ExitStack() as open_until_the_end, _told_in_one_line():
            response = self._patiently(
                lambda: open_until_the_end.enter_context(
                    self._client.stream("POST", "/v1/chat/completions", json=body)
                )
            )
            if response.status_code != 200:
                response.read()
                raise _refusal(response)
            for line in response.iter_lines():
                if line.startswith("data: ") and line != "data: [DONE]":
                    with _understood():
                        data = json.loads(line.removeprefix("data: "))
                    if "error" in data:
                        raise ModelError(str(data["error"]["message"]))
                    yield data

    def tokens(self, model: str, prompt: Conversation) -> list[TokenPiece]:
        body = {"model": model, "messages": prompt.to_json()}
        found = self._ask("POST", "/v1/amenable/tokens", body)
        with _understood():
            return [
                TokenPiece(int(each["id"]), str(each["text"]), bool(each["is_structure"]))
                for each in found["pieces"]
            ]

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        with _told_in_one_line():
            response = self._patiently(lambda: self._client.request(method, path, json=body))
        if response.status_code != 200:
            raise _refusal(response)
        with _understood():
            return cast("dict[str, Any]", response.json())

    def _patiently(self, ask: Callable[[], T]) -> T:
        end_at = time.monotonic() + self._patience
        while True:
            try:
                return ask()
            except httpx2.ConnectError:
                if time.monotonic() >= end_at:
                    raise
                time.sleep(RETRY_SECONDS)


def _body(request: Request, *, stream: bool) -> dict[str, Any]:
    settings = request.settings
    body: dict[str, Any] = {
        "model": request.model,
        "messages": request.prompt.to_json(),
        "max_tokens": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "seed": request.seed,
        "stream": stream,
    }
    return body | ({"stop": list(settings.stop)} if settings.stop else {})


def _whole(request: Request, body: dict[str, Any]) -> Sample:
    with _understood():
        choice = body["choices"][0]
        text, finish = choice["message"]["content"] or "", choice["finish_reason"]
        return _sample(request, text, finish, body)


def _sample(request: Request, text: str, finish: str, last: dict[str, Any]) -> Sample:
    """What our own address says of a reply is more than others say; both make a sample."""
    told = last.get("amenable", {})
    reason: StopReason = "length" if finish == "length" else "stop"
    if finish == "cancelled":
        reason = "cancelled"
    return Sample(
        prompt=request.prompt,
        reply=text.strip(),
        model=ModelRef(request.model, told.get("model_sha256", UNKNOWN_SHA256)),
        settings=request.settings,
        seed=told.get("seed", request.seed),
        stop_reason=told.get("stop_reason", reason),
        num_tokens=told.get("num_tokens", len(text.split())),
    )


def _refusal(response: httpx2.Response) -> AmenableError:
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"status {response.status_code}"
    if response.status_code == 404:
        return NotFoundError("model at this address", message)
    return ModelError(f"The model's address refused: {message}")


@contextmanager
def _told_in_one_line() -> Generator[None]:
    try:
        yield
    except httpx2.TransportError as error:
        raise ModelError(
            f"The model's address does not answer ({type(error).__name__})."
        ) from error


@contextmanager
def _understood() -> Generator[None]:
    """Around the reading of an answer, which may be a page of HTML or anything else."""
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelError(
            "What answers at the model's address is no OpenAI-compatible server."
        ) from error

"""The OpenAI-compatible address: models, chat completions, and what a model sees of a prompt."""

import asyncio
import hmac
import secrets
import threading
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from amenable.apps.hosts import THIS_MACHINE, host_of
from amenable.apps.serve.wire import (
    FINISH,
    ChatRequest,
    TokensRequest,
    event,
    provenance,
    read_conversation,
)
from amenable.generation.engine import Engine
from amenable.records.errors import AmenableError, NotAllowedError, NotFoundError
from amenable.records.sample import ModelRef, Sample

STATUS_OF: dict[type[Exception], int] = {NotFoundError: 404, NotAllowedError: 401}


class Models(Protocol):
    """Knows which models there are, and loads the engine of one when it is asked for."""

    def listed(self) -> Sequence[ModelRef]: ...
    def engine_of(self, name: str) -> Engine: ...


def create_app(models: Models, secret: str | None) -> FastAPI:
    """`secret` is the bearer key of every route but /health; None opens them to this machine."""
    app = FastAPI(title="Amenable", docs_url=None, redoc_url=None, openapi_url=None)

    def door(request: Request) -> None:
        if secret is None:
            _check_name(request)
        else:
            _check_key(request, secret)

    guarded = [Depends(door)]

    @app.get("/health")
    def health() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        return {"status": "ok"}

    @app.get("/v1/models", dependencies=guarded)
    def list_models() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        data = [
            {"id": each.name, "object": "model", "created": 0, "owned_by": "amenable"}
            for each in models.listed()
        ]
        return {"object": "list", "data": data}

    @app.post("/v1/chat/completions", dependencies=guarded)
    async def chat(body: ChatRequest, request: Request) -> Response:  # pyright: ignore[reportUnusedFunction]
        engine = await run_in_threadpool(models.engine_of, body.model)
        completion = Completion(engine, body)
        if body.stream:
            return StreamingResponse(completion.events(), media_type="text/event-stream")
        return await completion.whole(request)

    @app.post("/v1/amenable/tokens", dependencies=guarded)
    def tokens(body: TokensRequest) -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction]
        pieces = models.engine_of(body.model).tokens(body.model, read_conversation(body.messages))
        return {
            "pieces": [
                {"id": each.id, "text": each.text, "is_structure": each.is_structure}
                for each in pieces
            ]
        }

    app.add_exception_handler(AmenableError, _show)
    app.add_exception_handler(RequestValidationError, _show_invalid)
    app.add_exception_handler(HTTPException, _show_refused)
    return app


def _check_key(request: Request, secret: str) -> None:
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode(), secret.encode()):
        raise NotAllowedError("This address needs its key, as a bearer token.")


def _check_name(request: Request) -> None:
    """Else a web page whose own name was made to lead here could read every answer."""
    if host_of(request.headers.get("host", "")) not in THIS_MACHINE:
        raise HTTPException(421, "Under this name the address answers only with a key.")


async def _show(_: Request, error: Exception) -> JSONResponse:
    status = STATUS_OF.get(type(error), 400)
    return JSONResponse({"error": {"message": str(error), "type": "invalid_request"}}, status)


async def _show_invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    message = f"{where}: {first['msg']}"
    return JSONResponse({"error": {"message": message, "type": "invalid_request"}}, 422)


async def _show_refused(_: Request, error: Exception) -> JSONResponse:
    """What is refused before any of the above: an unknown address, a body that is no JSON."""
    assert isinstance(error, HTTPException)
    message = {"message": str(error.detail), "type": "invalid_request"}
    return JSONResponse({"error": message}, error.status_code, error.headers)


class Completion:
    """One reply on its way; generation runs in a thread and stops when nobody listens."""

    def __init__(self, engine: Engine, body: ChatRequest) -> None:
        self._engine = engine
        self._request = body.to_request(secrets.randbits(32))
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._left = threading.Event()

    def _chunk(self, delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._request.model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }

    async def _pieces(self) -> AsyncIterator[str | Sample | AmenableError]:
        """The engine's pieces, from its thread.

        They wait for a slow reader in a queue, which is never longer than a reply may be: a thread
        that waited instead would keep others from speaking, and for ever once the reader is gone.
        """
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[str | Sample | AmenableError | None] = asyncio.Queue()

        def put(item: str | Sample | AmenableError | None) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, item)

        def work() -> None:
            try:
                for piece in self._engine.stream(self._request, self._left.is_set):
                    put(piece)
            except AmenableError as error:
                put(error)
            finally:
                put(None)

        task = loop.run_in_executor(None, work)
        try:
            while (item := await queue.get()) is not None:
                yield item
            await task  # a bug in the engine is raised here, and not taken for an end
        finally:
            self._left.set()

    async def events(self) -> AsyncIterator[str]:
        began = time.monotonic()
        yield event(self._chunk({"role": "assistant", "content": ""}))
        async for piece in self._pieces():
            match piece:
                case str():
                    yield event(self._chunk({"content": piece}))
                case Sample():
                    last = self._chunk({}, FINISH[piece.stop_reason])
                    yield event(last | {"amenable": provenance(piece, time.monotonic() - began)})
                case AmenableError():
                    yield event({"error": {"message": str(piece), "type": "invalid_request"}})
        yield "data: [DONE]\n\n"

    async def whole(self, request: Request) -> JSONResponse:
        """The reply in one piece; given up within a step when the client has left."""
        began = time.monotonic()
        watcher = asyncio.create_task(self._watch(request))
        sample: Sample | None = None
        try:
            async for piece in self._pieces():
                if isinstance(piece, AmenableError):
                    raise piece
                if isinstance(piece, Sample):
                    sample = piece
        finally:
            watcher.cancel()
        assert sample is not None
        num_prompt = await run_in_threadpool(
            lambda: len(self._engine.tokens(self._request.model, self._request.prompt))
        )
        return JSONResponse(self._body(sample, num_prompt, time.monotonic() - began))

    async def _watch(self, request: Request) -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(0.1)
        self._left.set()

    def _body(self, sample: Sample, num_prompt: int, seconds: float) -> dict[str, Any]:
        message = {"role": "assistant", "content": sample.reply}
        finish = FINISH[sample.stop_reason]
        return {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._request.model,
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": {
                "prompt_tokens": num_prompt,
                "completion_tokens": sample.num_tokens,
                "total_tokens": num_prompt + sample.num_tokens,
            },
            "amenable": provenance(sample, seconds),
        }

"""Chat: one prompt, two voices, streamed as they speak; thumbs, and what the model sees."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import select
from sqlalchemy.orm import Session

from amenable.apps.web import live_view, markdown, queries, suggestions, words
from amenable.apps.web.shop import InShop, Shop
from amenable.generation.engine import Request as Wanted
from amenable.records.conversation import Conversation
from amenable.records.errors import AmenableError, ConflictError, DataError
from amenable.records.sample import Sample, SamplingSettings
from amenable.store import library, samples
from amenable.store.tables import ModelRow, VerdictRow

router = APIRouter(prefix="/chat")
MAX_SHOWN_TOKENS = 2000

Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=20_000)]


class Said(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "user", "assistant"]
    content: Text


class Asked(BaseModel):
    """One reply wanted from one model."""

    model_config = ConfigDict(extra="forbid")
    model: Name
    messages: Annotated[list[Said], Field(min_length=1, max_length=60)]
    max_new_tokens: Annotated[int, Field(ge=1, le=1024)] = 160
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    def conversation(self) -> Conversation:
        return conversation_of(self.messages)


class SeenBy(BaseModel):
    """The conversation with one model: from the first reply on, each has its own."""

    model_config = ConfigDict(extra="forbid")
    model: Name
    messages: Annotated[list[Said], Field(min_length=1, max_length=60)]


class Seen(BaseModel):
    model_config = ConfigDict(extra="forbid")
    voices: Annotated[list[SeenBy], Field(min_length=1, max_length=2)]


class Thumb(BaseModel):
    model_config = ConfigDict(extra="forbid")
    sample_id: Annotated[int, Field(ge=1, lt=2**53)]
    is_good: bool
    reason: Annotated[str, StringConstraints(max_length=500)] = ""


def conversation_of(messages: list[Said]) -> Conversation:
    try:
        return Conversation.from_json([message.model_dump() for message in messages])
    except ValueError as error:
        raise DataError(f"This conversation cannot be continued: {error}.") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    name: str
    voice: str
    says: str


def choices(session: Session) -> list[ModelChoice]:
    says = {"base": "continues text", "policy": "", "instruct": "made by others"}
    return [
        ModelChoice(
            name=row.name, voice=words.VOICES.get(row.kind, "other"), says=says.get(row.kind, "")
        )
        for row in library.speakers(session)
    ]


@router.get("")
def page(request: Request, shop: InShop) -> HTMLResponse:
    with shop.database.read() as session:
        models = choices(session)
        bases = [model.name for model in models if model.voice == "base"]
        others = [model.name for model in models if model.voice != "base"]
        ours = [model.name for model in models if model.voice == "instruct"]
        run = queries.live_run(session)
        base = session.scalars(select(ModelRow).where(ModelRow.kind == "base").limit(1)).first()
        comparing = queries.newest_comparison(session, shop.workspace.runs)
        suggested = suggestions.suggestions(session, comparing, (ours or [""])[-1])
        return shop.page(
            request,
            "chat.html",
            session,
            here="/chat",
            models=models,
            left=(bases or others or [""])[0],
            right=(ours or [""])[-1],
            progress=run and live_view.progress_view(shop.workspace.run_folder(run.id)),
            size_words=size_words(base),
            suggestions=suggested.prompts,
            suggestions_say=suggested.says,
        )


def size_words(base: ModelRow | None) -> str:
    number = base.info.get("num_parameters") if base else None
    return f"a model of {words.parameters(number)} parameters" if number else "a small model"


@router.post("/replies")
async def reply(asked: Asked, request: Request, shop: InShop) -> Response:
    """One reply as a stream of events; at its end the sample is kept, also when cut short."""
    wanted = Wanted(
        prompt=asked.conversation(),
        model=asked.model,
        settings=SamplingSettings(
            max_new_tokens=asked.max_new_tokens, temperature=asked.temperature
        ),
        seed=asked.seed,
    )
    return StreamingResponse(
        _events(shop, wanted, request),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _events(shop: Shop, wanted: Wanted, request: Request) -> AsyncIterator[str]:
    """Bridges the engine's thread to the stream; who leaves early cancels the engine's work."""
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[dict[str, object] | None] = asyncio.Queue()
    gone = threading.Event()

    def tell(event: dict[str, object] | None) -> None:
        with suppress(RuntimeError):  # the loop was closed: nobody listens any more
            loop.call_soon_threadsafe(events.put_nowait, event)

    def work() -> None:
        try:
            for event in _speak(shop, wanted, gone):
                tell(event)
        except AmenableError as error:
            tell({"error": str(error)})
        finally:
            tell(None)

    threading.Thread(target=work, name="chat-reply", daemon=True).start()
    try:
        while (event := await events.get()) is not None:
            yield f"data: {json.dumps(event)}\n\n"
            if await request.is_disconnected():
                break
    finally:
        gone.set()


def _speak(shop: Shop, wanted: Wanted, gone: threading.Event) -> Iterator[dict[str, object]]:
    started_at = time.monotonic()
    for piece in shop.engine.stream(wanted, gone.is_set):
        if isinstance(piece, Sample):
            sample_id = shop.writer.submit(
                lambda session, sample=piece: samples.keep_sample(
                    session, sample, run_id=None, prompt_key="chat"
                )
            )
            yield _whole(piece, sample_id, time.monotonic() - started_at)
        else:
            yield {"piece": piece}


def _whole(sample: Sample, sample_id: int, seconds: float) -> dict[str, object]:
    ends = {
        "stop": "ended by itself",
        "length": f"cut off at {sample.num_tokens} tokens",
        "cancelled": "stopped by you",
    }
    facts = [ends[sample.stop_reason]]
    if sample.stop_reason == "stop":
        facts.append("1 token" if sample.num_tokens == 1 else f"{sample.num_tokens} tokens")
    facts.append(f"{seconds:.1f} s")
    return {
        "sample_id": sample_id,
        "text": sample.reply,
        "html": str(markdown.render(sample.reply)),
        "stop_reason": sample.stop_reason,
        "facts": " · ".join(facts),
    }


@router.post("/verdicts", status_code=204)
def verdict(thumb: Thumb, shop: InShop) -> None:
    """A thumb on a reply said here; a second one on the same reply replaces the first."""
    person_id = shop.person_id()

    def keep(session: Session) -> None:
        if samples.sample(session, thumb.sample_id).run_id is not None:
            raise ConflictError("Only replies said in the chat take thumbs; pairs are judged.")
        row = session.scalars(
            select(VerdictRow).where(VerdictRow.sample_id == thumb.sample_id)
        ).one_or_none()
        if row is None:
            row = VerdictRow(
                sample_id=thumb.sample_id, person_id=person_id, created_at=datetime.now(UTC)
            )
            session.add(row)
        row.is_good, row.reason = thumb.is_good, thumb.reason.strip()

    shop.writer.submit(keep)


@router.post("/tokens")
def tokens(seen: Seen, request: Request, shop: InShop) -> HTMLResponse:
    """Each conversation as the row of tokens that its model is given."""
    conversations = [(voice.model, conversation_of(voice.messages)) for voice in seen.voices]
    with shop.database.read() as session:
        kinds = queries.model_kinds(session)
    views: list[dict[str, object]] = []
    for name, conversation in conversations:
        pieces = shop.engine.tokens(name, conversation)
        shown = pieces[-MAX_SHOWN_TOKENS:]
        views.append(
            {
                "model": name,
                "voice": words.VOICES.get(kinds.get(name, ""), "other"),
                "pieces": pieces,
                "shown": shown,
                "num_left_out": len(pieces) - len(shown),
            }
        )
    return shop.part(request, "parts/tokens.html", views=views)

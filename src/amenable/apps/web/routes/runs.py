"""Runs: everything that was executed, one of them live, to be stopped and continued."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse, JSONResponse, Response

from amenable.apps.web import live_view, words
from amenable.apps.web.answers import go
from amenable.apps.web.shop import InShop
from amenable.records.run import Run
from amenable.store import runs as run_store

router = APIRouter(prefix="/runs")

RunId = Annotated[str, InPath(pattern=r"^[a-z0-9-]{1,40}$")]
AfterStep = Annotated[int, Query(ge=-1, lt=2**53)]

STATUS_WORDS = {
    "queued": "waiting for its turn",
    "running": "running",
    "done": "done",
    "failed": "failed",
    "stopped": "stopped; it can be continued",
}
LINKS = {
    "prepare": ("/chat", "Talk to it"),
    "pretrain": ("/models", "See the family"),
    "finetune": ("/chat", "Talk to both"),
    "sample": ("/judge", "Judge the pairs"),
    "align": ("/models", "See the family"),
    "reward": ("/models", "See the family"),
    "compare": ("/report", "See the report"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    id: str
    title: str
    status: str
    status_words: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    from_words: str
    made_words: str
    found_words: str
    config: list[tuple[str, str]]
    seed: int
    versions: Mapping[str, str]
    time: str
    memory: str
    when: str
    error: str | None
    can_continue: bool
    link: str
    link_words: str


def run_view(run: Run) -> RunView:
    link, link_words = LINKS.get(run.stage, ("", "")) if run.status == "done" else ("", "")
    outputs = words.names(run.outputs)
    found = {role: value for role, value in run.outputs.items() if role not in outputs}
    return RunView(
        id=run.id,
        title=words.STAGE_TITLES.get(run.stage, words.plain(run.stage).capitalize()),
        status=run.status,
        status_words=STATUS_WORDS[run.status],
        inputs=run.inputs,
        outputs=outputs,
        from_words=words.roles(run.inputs),
        made_words=words.roles(run.outputs),
        found_words=words.roles(found),
        config=list(_flat(run.config)),
        seed=run.seed,
        versions=run.versions,
        time=words.duration(run.seconds),
        memory=words.size(run.peak_memory_bytes),
        when=words.moment(run.created_at),
        error=run.error,
        can_continue=run.status in ("failed", "stopped"),
        link=link,
        link_words=link_words,
    )


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested knobs as the command line writes them: fit.learning-rate."""
    for name, value in config.items():
        path = f"{prefix}{name.replace('_', '-')}"
        if isinstance(value, dict):
            yield from _flat(value, f"{path}.")
        else:
            yield path, str(value)


@router.get("")
def page(request: Request, shop: InShop) -> HTMLResponse:
    with shop.database.read() as session:
        found = [run_view(run) for run in run_store.list_runs(session)]
        return shop.page(request, "runs.html", session, here="/runs", runs=found)


@router.get("/{run_id}")
def one(run_id: RunId, request: Request, shop: InShop) -> HTMLResponse:
    with shop.database.read() as session:
        run = run_store.get(session, run_id)
        folder = shop.workspace.run_folder(run.id)
        return shop.page(
            request,
            "run.html",
            session,
            here="/runs",
            run=run_view(run),
            progress=live_view.progress_view(folder),
            points=live_view.points(folder),
            film=live_view.film_view(folder, is_over=run.status == "done"),
        )


@router.get("/{run_id}/live")
def live(run_id: RunId, request: Request, shop: InShop, after: AfterStep = -1) -> JSONResponse:
    """What is new of a run since a step: asked for again and again while it is watched."""
    with shop.database.read() as session:
        run = run_store.get(session, run_id)
    folder = shop.workspace.run_folder(run.id)
    progress = live_view.progress_view(folder)
    film = live_view.film_view(folder, is_over=run.status == "done")
    html = film and bytes(shop.part(request, "parts/film.html", film=film).body).decode()
    return JSONResponse(
        {
            "status": run.status,
            "progress": progress and progress.to_json(),
            "points": live_view.points(folder, after),
            "film": html,
            "num_frames": film.num_frames if film else 0,
        }
    )


@router.post("/{run_id}/stop")
def stop(run_id: RunId, request: Request, shop: InShop) -> Response:
    shop.writer.submit(lambda session: run_store.request_stop(session, run_id))
    return go(request, f"/runs/{run_id}")


@router.post("/{run_id}/continue")
def go_on(run_id: RunId, request: Request, shop: InShop) -> Response:
    shop.writer.submit(lambda session: run_store.requeue(session, run_id))
    return go(request, f"/runs/{run_id}")

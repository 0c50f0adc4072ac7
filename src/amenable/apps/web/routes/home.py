"""Home: the loop as a picture, where it stands, and the one next useful step; and the door."""

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import StringConstraints
from sqlalchemy.orm import Session

from amenable.apps.web import live_view, loop_view, queries
from amenable.apps.web.answers import go
from amenable.apps.web.pictures import LOOPS
from amenable.apps.web.security import SESSION_LASTS, Sessions, cookie_of
from amenable.apps.web.shop import InShop, Shop
from amenable.models.catalogue import KNOWN_MODELS, KnownModel
from amenable.pipeline import licences, loop
from amenable.pipeline.config import PrepareConfig
from amenable.records.errors import NotFoundError

router = APIRouter()

Token = Annotated[str, Query(max_length=200)]
Seen = Annotated[str, Query(max_length=200)]
ModelName = Annotated[str, StringConstraints(max_length=100), Form()]
Box = Annotated[str, StringConstraints(max_length=8), Form()]


@router.get("/")
def page(request: Request, shop: InShop) -> HTMLResponse:
    with shop.database.read() as session:
        view = loop_view.loop_view(session)
        run = queries.live_run(session)
        folder = run and shop.workspace.run_folder(run.id)
        taught = run if run and run.stage == "finetune" else queries.newest_run(session, "finetune")
        return shop.page(
            request,
            "home.html",
            session,
            here="/",
            first=first_model(session, view),
            pulse=queries.pulse(session),
            first_cost=queries.cost_words(session, "finetune", "sample", "compare"),
            lead=_lead(session, shop, view),
            pictures=LOOPS,
            parts=loop_view.parts(session, shop.workspace, view),
            run=run,
            progress=folder and live_view.progress_view(folder),
            points=live_view.points(folder) if folder else [],
            film=taught
            and live_view.film_view(
                shop.workspace.run_folder(taught.id), is_over=taught.status == "done"
            ),
        )


def first_model(session: Session, view: loop_view.LoopView) -> KnownModel | None:
    """The model whose terms stand on Home until they are accepted; None for one's own."""
    known = KNOWN_MODELS.get(view.state.base)
    prepare = view.state.step("prepare")
    if known is None or prepare.status in ("running", "done"):
        return None
    is_waiting = prepare.run is None or not licences.is_accepted(session, known.name)
    return known if is_waiting else None


def _lead(session: Session, shop: Shop, view: loop_view.LoopView) -> str:
    """Once the loop is closed, what came of it; until then the next step speaks for itself."""
    if not view.state.is_closed:
        return ""
    comparing = queries.newest_comparison(session, shop.workspace.runs)
    return comparing.result.headline.rstrip(".") + "." if comparing else ""


@router.post("/begin")
def begin(request: Request, shop: InShop, model: ModelName, is_accepted: Box = "") -> Response:
    """Accept the terms of a known model and let the loop begin with it."""
    known = KNOWN_MODELS.get(model)
    if known is None:
        raise NotFoundError("known model", model, known=KNOWN_MODELS)

    def start_loop(session: Session) -> None:
        if is_accepted:
            licences.accept_licence(session, known)
        config = PrepareConfig(accept_licence=bool(is_accepted))
        loop.begin(session, config, base=known.name)

    shop.writer.submit(start_loop)
    return go(request, "/")


@router.post("/again")
def again(request: Request, shop: InShop) -> Response:
    """Another round of the loop: the newest version's replies are judged next."""
    shop.writer.submit(loop.go_round_again)
    return go(request, "/")


@router.get("/pulse")
def pulse(shop: InShop, seen: Seen) -> Response:
    """A page that waits asks this; it is loaded anew once the loop has moved on."""
    with shop.database.read() as session:
        has_moved = queries.pulse(session) != seen
    return Response(status_code=204, headers={"HX-Refresh": "true"} if has_moved else {})


@router.get("/health")
def health() -> JSONResponse:
    return JSONResponse({"status": "ready"})


@router.get("/start")
def start(request: Request, shop: InShop, token: Token = "") -> Response:
    """The one door: the link that the terminal printed opens it once."""
    sessions: Sessions = request.app.state.sessions
    name: str = request.app.state.cookie
    cookie = sessions.enter(token)
    if cookie is None and not sessions.is_open(cookie_of(request.headers, name)):
        return shop.templates.TemplateResponse(
            request,
            "door.html",
            {
                "theme": "",
                "enter": False,
                "title": "This link was used before",
                "text": "Each link that Amenable prints opens one browser, once. "
                "Start it again for a fresh one:",
                "hint": "",
                "command": "start",
                "is_inside": False,
            },
            status_code=401,
        )
    # A page that leads on, not a redirect: a browser that came from elsewhere sends a strict cookie
    # only with what our own pages ask for.
    response = shop.templates.TemplateResponse(request, "door.html", {"theme": "", "enter": True})
    if cookie is not None:
        response.set_cookie(
            name,
            cookie,
            max_age=int(SESSION_LASTS.total_seconds()),
            httponly=True,
            samesite="strict",
            path="/",
        )
    return response

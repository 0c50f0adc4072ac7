"""The web app: pages over the workspace and an engine, behind one guard."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import jinja2
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from fastapi.telemetry import TelemetryConfig
from fastapi.templating import Jinja2Templates
from starlette.exceptions import HTTPException
from starlette.types import Scope

from amenable.apps.hosts import THIS_MACHINE
from amenable.apps.web import markdown, words
from amenable.apps.web.answers import is_htmx
from amenable.apps.web.routes import chat, data, home, judge, models, report, runs, train
from amenable.apps.web.security import Guard, Refusal, Sessions
from amenable.apps.web.shop import Shop
from amenable.generation.engine import Engine
from amenable.records.errors import (
    AmenableError,
    ConfigError,
    ConflictError,
    NotAllowedError,
    NotFoundError,
    WorkspaceError,
)
from amenable.store.database import GroupWriter
from amenable.store.workspace import Workspace

HERE = Path(__file__).parent
STATUS_OF: dict[type[Exception], int] = {
    NotFoundError: 404,
    NotAllowedError: 403,
    ConflictError: 409,
    ConfigError: 422,
    WorkspaceError: 503,
}
TITLES = {
    401: "This browser has not been let in yet",
    404: "There is no such page",
    409: "That was done already",
    413: "Too large",
    421: "This address is not known here",
    503: "The workspace cannot be written just now",
}


# Nothing leaves this machine, whatever the environment asks of the framework.
NO_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the app listens; only requests for these names are answered."""

    host: str = "127.0.0.1"
    port: int = 8765

    @property
    def names(self) -> frozenset[str]:
        return THIS_MACHINE | {self.host}

    @property
    def cookie(self) -> str:
        # Cookies are shared by all ports of a host, and so by all workspaces open on it.
        return f"amenable-{self.port}"


def create_app(
    workspace: Workspace, engine: Engine, launch_token: str, *, address: Address | None = None
) -> FastAPI:
    """The app; it closes its writer, but not the workspace, when it shuts down."""
    address = address or Address()
    writer = GroupWriter(workspace.database)
    templates = _templates(workspace.folder)
    sessions = Sessions(workspace.database, writer, workspace.secret(), launch_token)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        writer.close()

    app = FastAPI(
        lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, telemetry=NO_TELEMETRY
    )
    app.state.shop = Shop(workspace, writer, engine, templates)
    app.state.sessions = sessions
    app.state.cookie = address.cookie
    for room in (home, chat, judge, data, models, runs, train, report):
        app.include_router(room.router)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    _explain_errors(app, templates)
    app.add_middleware(
        Guard,
        sessions=sessions,
        hosts=address.names,
        cookie=address.cookie,
        refuse=lambda scope, refusal: _refused(templates, scope, refusal),
    )
    return app


def _templates(folder: Path) -> Jinja2Templates:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "markdown": markdown.render,
        "thousands": words.thousands,
        "words": words.plain,
        "shorten": words.shorten,
        "show_space": words.show_space,
        "size": words.size,
    }
    marks = environment.get_template("marks.html").module
    environment.globals |= {"mark": getattr(marks, "mark"), "icon": getattr(marks, "icon")}  # noqa: B009
    environment.globals["again"] = cast("Any", partial(words.again, workspace=folder))
    return Jinja2Templates(env=environment)


def _explain_errors(app: FastAPI, templates: Jinja2Templates) -> None:
    """Every error has one shape: a page for people, {"error": sentence} for scripts."""

    def known(request: Request, error: Exception) -> Response:
        status = next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), 400)
        return _answer(templates, request, status, str(error))

    def by_status(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        text = "Nothing stands at this address." if error.status_code == 404 else error.detail
        return _answer(templates, request, error.status_code, str(text))

    def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        return _answer(templates, request, 422, f"{field}: {first['msg']}.")

    def bug(request: Request, error: Exception) -> Response:
        del error  # the server logs it with its traceback
        text = "This is a mistake in Amenable; the log of the web process says more."
        return _answer(templates, request, 500, text)

    app.add_exception_handler(AmenableError, known)
    app.add_exception_handler(HTTPException, by_status)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, bug)


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "") and not is_htmx(request)


def _answer(templates: Jinja2Templates, request: Request, status: int, text: str) -> Response:
    if not _wants_page(request):
        return JSONResponse({"error": text}, status)
    return _door(
        templates, request, status, TITLES.get(status, "This did not work"), text, is_inside=True
    )


def _refused(templates: Jinja2Templates, scope: Scope, refusal: Refusal) -> Response:
    request = Request(scope)
    if not _wants_page(request):
        return JSONResponse({"error": refusal.message}, refusal.status)
    text = refusal.message
    if refusal.status == 401:
        text = "Open the one-time link that Amenable printed in the terminal. For a fresh one:"
    title = TITLES.get(refusal.status, "This did not work")
    return _door(templates, request, refusal.status, title, text, is_inside=False)


def _door(
    templates: Jinja2Templates,
    request: Request,
    status: int,
    title: str,
    text: str,
    *,
    is_inside: bool,
) -> HTMLResponse:
    content = {
        "theme": "",
        "enter": False,
        "title": title,
        "text": text,
        "hint": "",
        "command": "start" if status == 401 else "",
        "is_inside": is_inside,
    }
    return templates.TemplateResponse(request, "door.html", content, status_code=status)

"""What every handler needs: workspace, engine, writer, templates, and who is asking."""

import hashlib
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException

from amenable.apps.web import loop_view, queries
from amenable.feedback import people
from amenable.generation.engine import Engine
from amenable.store.database import Database, GroupWriter
from amenable.store.tables import PersonRow
from amenable.store.workspace import Workspace

LOCAL_PERSON = "You"
THEMES = frozenset({"light", "dark"})
WORKSPACE_HEADER = "x-amenable-workspace"
"""What a page may send along, so that it is not answered for another workspace at its address."""


@dataclass(frozen=True, slots=True)
class Room:
    name: str
    path: str
    icon: str


ROOMS = (
    Room("Home", "/", "loop"),
    Room("Chat", "/chat", "chat"),
    Room("Judge", "/judge", "judge"),
    Room("Data", "/data", "data"),
    Room("Models", "/models", "models"),
    Room("Runs", "/runs", "runs"),
    Room("Report", "/report", "report"),
)


@dataclass(slots=True)
class Shop:
    workspace: Workspace
    writer: GroupWriter
    engine: Engine
    templates: Jinja2Templates
    _person_id: int | None = field(default=None)

    @property
    def database(self) -> Database:
        return self.workspace.database

    def person_id(self) -> int:
        """The one person of a workspace on loopback."""
        if self._person_id is None:
            self._person_id = self.writer.submit(
                lambda session: people.person(session, LOCAL_PERSON, is_simulated=False)
            )
        return self._person_id

    def workspace_id(self, session: Session) -> str:
        """Names this workspace in a browser: its folder, and when its first person came.

        A browser keeps what it stores under an address, and one workspace after another is served
        at the same one. A copy has another folder; a new one in the same folder another moment.
        """
        first = session.scalar(select(PersonRow.created_at).order_by(PersonRow.id).limit(1))
        named = f"{self.workspace.folder}\n{first and first.isoformat()}"
        return hashlib.sha256(named.encode(errors="surrogateescape")).hexdigest()[:16]

    def page(
        self, request: Request, name: str, session: Session, **content: object
    ) -> HTMLResponse:
        """A whole page, with what the frame around it shows."""
        theme = request.cookies.get("theme", "")
        frame = {
            "rooms": ROOMS,
            "theme": theme if theme in THEMES else "",
            "journey": loop_view.loop_view(session),
            "is_simulated": queries.is_simulated(session),
            "workspace_id": self.workspace_id(session),
        }
        return self.templates.TemplateResponse(request, name, {**frame, **content})

    def part(self, request: Request, name: str, **content: object) -> HTMLResponse:
        """A piece of a page, asked for by a page that stands already."""
        return self.templates.TemplateResponse(request, name, content)


def shop_of(request: Request) -> Shop:
    shop = request.app.state.shop
    assert isinstance(shop, Shop)
    if meant := request.headers.get(WORKSPACE_HEADER):
        with shop.database.read() as session:
            here = shop.workspace_id(session)
        if meant != here:
            raise HTTPException(
                412, "This page is of another workspace than the one that runs here now."
            )
    return shop


InShop = Annotated[Shop, Depends(shop_of)]

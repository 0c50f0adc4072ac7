"""What every handler needs: workspace, engine, writer, templates, and who is asking."""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from sqlalchemy.orm import Session

from amenable.apps.web import loop_view, queries
from amenable.feedback import people
from amenable.generation.engine import Engine
from amenable.store.database import Database, GroupWriter
from amenable.store.workspace import Workspace

LOCAL_PERSON = "You"
THEMES = frozenset({"light", "dark"})


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
        }
        return self.templates.TemplateResponse(request, name, {**frame, **content})

    def part(self, request: Request, name: str, **content: object) -> HTMLResponse:
        """A piece of a page, asked for by a page that stands already."""
        return self.templates.TemplateResponse(request, name, content)


def shop_of(request: Request) -> Shop:
    shop = request.app.state.shop
    assert isinstance(shop, Shop)
    return shop


InShop = Annotated[Shop, Depends(shop_of)]

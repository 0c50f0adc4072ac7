"""Report: the differences as measured, and the self-contained file."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from pydantic import StringConstraints
from sqlalchemy.orm import Session

from amenable.apps.web import queries, report_view, words
from amenable.apps.web.answers import go
from amenable.apps.web.shop import InShop
from amenable.pipeline import loop
from amenable.records.errors import DataError, NotFoundError
from amenable.records.guest import Guest
from amenable.records.run import Run
from amenable.store import library

router = APIRouter(prefix="/report")

MOST_MODELS = 8
Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Address = Annotated[str, StringConstraints(max_length=300), Form()]

# The file carries its pictures and styles inside; nothing in it may run or reach out.
FILE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox allow-popups"
)


@router.get("")
def page(request: Request, shop: InShop) -> HTMLResponse:
    with shop.database.read() as session:
        comparing = queries.newest_comparison(session, shop.workspace.runs)
        return shop.page(
            request,
            "report.html",
            session,
            here="/report",
            report=comparing and report_view.report_view(comparing.result),
            is_newest_unread=queries.is_newest_unread(session, comparing),
            byline=comparing and _byline(comparing.run),
            people_say=queries.people_say(session),
            has_file=queries.report_file(session, shop.workspace.runs) is not None,
            choices=[
                (row.name, words.VOICES.get(row.kind, "other")) for row in library.speakers(session)
            ],
            compared=comparing.run.inputs.get("models", "").split(",") if comparing else [],
            cost=queries.cost_words(session, "compare"),
        )


def _byline(run: Run) -> str:
    took = words.duration(run.seconds)
    return f"Measured {words.moment(run.finished_at)}, in {took}. Spans are 95 % intervals."


@router.post("/compare")
def compare(
    request: Request,
    shop: InShop,
    models: Annotated[list[Name], Form(max_length=MOST_MODELS)],
    guest: Address = "",
) -> Response:
    """Measure models of one's choice side by side, with a guest at an address if one is named."""
    invited = guest.strip()
    if invited and Guest.parse(invited) is None:
        raise DataError("Write the guest as NAME@ADDRESS: llama3.2@http://127.0.0.1:11434")

    def begin(session: Session) -> str:
        for name in models:
            library.speaker(session, name)
        return loop.compare(session, [*dict.fromkeys(models), *([invited] if invited else [])])

    return go(request, f"/runs/{shop.writer.submit(begin)}")


@router.get("/file")
def file(shop: InShop) -> FileResponse:
    with shop.database.read() as session:
        path = queries.report_file(session, shop.workspace.runs)
    if path is None:
        raise NotFoundError("report", "report.html")
    return FileResponse(
        path, media_type="text/html", headers={"content-security-policy": FILE_POLICY}
    )

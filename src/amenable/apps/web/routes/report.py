"""Report: the differences as measured, and the self-contained file."""

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse

from amenable.apps.web import queries, report_view, words
from amenable.apps.web.shop import InShop
from amenable.records.errors import NotFoundError
from amenable.records.run import Run

router = APIRouter(prefix="/report")

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
            byline=comparing and _byline(comparing.run),
            people_say=queries.people_say(session),
            has_file=queries.report_file(session, shop.workspace.runs) is not None,
        )


def _byline(run: Run) -> str:
    took = words.duration(run.seconds)
    return f"Measured {words.moment(run.finished_at)}, in {took}. Spans are 95 % intervals."


@router.get("/file")
def file(shop: InShop) -> FileResponse:
    with shop.database.read() as session:
        path = queries.report_file(session, shop.workspace.runs)
    if path is None:
        raise NotFoundError("report", "report.html")
    return FileResponse(
        path, media_type="text/html", headers={"content-security-policy": FILE_POLICY}
    )

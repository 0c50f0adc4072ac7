"""Data: what is there, a file of yours, and the loop on your own."""

import tempfile
from pathlib import Path, PurePosixPath
from typing import Annotated

from fastapi import APIRouter, File, Form, Query, Request, UploadFile
from fastapi.responses import HTMLResponse, Response
from pydantic import StringConstraints
from sqlalchemy.orm import Session

from amenable.apps.web import queries, words
from amenable.apps.web.answers import go
from amenable.apps.web.shop import InShop, Shop
from amenable.datasets.detect import KINDS
from amenable.pipeline import loop
from amenable.pipeline.config import PrepareConfig
from amenable.pipeline.data import import_file
from amenable.pipeline.sources import STARTER_DEMONSTRATIONS, STARTER_PROMPTS, Sources
from amenable.records.errors import DataError

router = APIRouter(prefix="/data")

COPY_BYTES = 1 << 20
EXAM_SHARE = 0.2
AUTO = "auto"

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,59}$"), Form()]
Short = Annotated[str, StringConstraints(max_length=100), Form()]
Long = Annotated[str, StringConstraints(max_length=300), Form()]
Box = Annotated[str, StringConstraints(max_length=8), Form()]
Added = Annotated[str, Query(max_length=100)]


@router.get("")
def page(request: Request, shop: InShop, added: Added = "") -> HTMLResponse:
    """`added` names the data set that a file has just become."""
    with shop.database.read() as session:
        found = queries.datasets(session)
        total = queries.num_demonstrations(session)
        return shop.page(
            request,
            "data.html",
            session,
            here="/data",
            datasets=found,
            added=next((each for each in found if each.name == added), None),
            lead=f"{words.thousands(total)} demonstrations teach the manners; prompts ask for "
            "replies that you judge; sealed rows measure, and no training ever reads them.",
            kinds=[{"value": AUTO, "words": "find out"}]
            + [
                {"value": kind.name, "words": f"{kind.name}: {kind.keys}"}
                for kind in KINDS.values()
            ],
            base_models=[row.name for row in queries.model_rows(session) if row.kind == "base"],
            demonstration_sets=[each.name for each in found if each.type == "conversation"],
            prompt_sets=[each.name for each in found if each.type == "prompt"],
            own=Sources.of(session),
            own_base=loop.LoopState.of(session).base,
            own_cost=queries.cost_words(session, "prepare", "finetune", "sample", "compare"),
        )


@router.post("/own")
def use_own(
    request: Request,
    shop: InShop,
    model: Long,
    demonstrations: Short = "",
    prompts: Short = "",
    with_starter: Box = "",
) -> Response:
    """The same loop on what people brought; what was made before stays in the library."""
    wanted = model.strip()
    sources = Sources(
        demonstrations=_chosen(demonstrations, STARTER_DEMONSTRATIONS, also=bool(with_starter)),
        prompts=_chosen(prompts, STARTER_PROMPTS, also=False),
    )

    def begin(session: Session) -> None:
        sources.keep(session)
        loop.begin_anew(session, PrepareConfig(), base=wanted)

    shop.writer.submit(begin)
    return go(request, "/")


def _chosen(own: str, starter: str, *, also: bool) -> tuple[str, ...]:
    if not own:
        return (starter,)
    return (own, starter) if also and own != starter else (own,)


@router.post("/import")
def take(  # noqa: PLR0913, PLR0917  one argument a field of the form
    request: Request,
    shop: InShop,
    file: Annotated[UploadFile, File()],
    name: Name,
    kind: Short = AUTO,
    licence: Short = "",
    is_exam_sealed: Box = "",
) -> Response:
    _import(shop, file, name, kind, licence, EXAM_SHARE if is_exam_sealed else 0.0)
    return go(request, f"/data?added={name}")


def _import(
    shop: Shop, file: UploadFile, name: str, kind: str, licence: str, exam_share: float
) -> None:
    # Only the ending of the sent name is used, for it says how the file is written.
    sent_name = PurePosixPath((file.filename or "file").replace("\\", "/")).name[-100:]
    shop.workspace.size_check(2 * (file.size or 0))
    with tempfile.TemporaryDirectory(dir=shop.workspace.downloads) as folder:
        path = Path(folder) / f"upload{PurePosixPath(sent_name).suffix[:16]}"
        with path.open("wb") as copy:
            while block := file.file.read(COPY_BYTES):
                copy.write(block)
        if path.stat().st_size == 0:
            raise DataError(f"{sent_name} is empty.")
        import_file(
            shop.workspace,
            path,
            name=name,
            kind=None if kind == AUTO else kind,
            licence=licence.strip() or "not stated",
            source=f"uploaded: {sent_name}",
            exam_share=exam_share,
        )

"""Models: the family tree, and for each its licence, size, origin and how to take it along."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from amenable.apps.web import queries, words
from amenable.apps.web.pictures import family_tree
from amenable.apps.web.shop import InShop
from amenable.pipeline import begin
from amenable.store.tables import ModelRow

router = APIRouter(prefix="/models")

SAYS = {
    "base": "A normal language model: it continues text.",
    "policy": "Trained here to do what it is asked.",
    "instruct": "An instruct model made by others.",
    "hybrid": "Between base and instruct.",
    "reward": "Predicts which of two replies people choose; says nothing itself.",
}
HOW = {
    "pretrain": "went on learning",
    "finetune": "finetuned",
    "align": "improved by votes",
    "reward": "taught to judge",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    name: str
    voice: str
    says: str
    size: str
    origin: str
    licence: str
    licence_text: str
    parent: str | None
    run_id: str | None
    how: str
    chat_form: str
    sha256: str
    is_simulated: bool
    is_ours: bool
    ways: Sequence[tuple[str, str]]
    """Stages that train from it by hand, with their titles."""
    accuracy: str
    """Of a reward model, which is not talked to."""


@router.get("")
def page(request: Request, shop: InShop) -> HTMLResponse:
    with shop.database.read() as session:
        rows = queries.model_rows(session)
        stages = queries.stages_of_runs(session, [row.run_id for row in rows if row.run_id])
        views = [_view(row, stages) for row in rows]
        num_ours = sum(view.is_ours for view in views)
        return shop.page(
            request,
            "models.html",
            session,
            here="/models",
            models=views,
            by_name={view.name: view for view in views},
            tree=family_tree({row.name: row.parent for row in rows}),
            lead=_lead(num_ours) if rows else "Nobody here yet.",
        )


def _lead(num_ours: int) -> str:
    if not num_ours:
        return "The base model is here. What is trained from it will grow to its right."
    versions = "one version" if num_ours == 1 else f"{num_ours} versions"
    return f"From a base model that continues text, {versions} that answer."


def _view(row: ModelRow, stages: Mapping[str, str]) -> ModelView:
    info = row.info
    size = [f"{words.parameters(info.get('num_parameters'))} parameters"]
    if info.get("bytes"):
        size.append(f"{words.size(info['bytes'])} on disk")
    return ModelView(
        name=row.name,
        voice=words.VOICES.get(row.kind, "other"),
        says=SAYS.get(row.kind, ""),
        size=", ".join(size),
        origin=row.origin,
        licence=row.licence,
        licence_text=str(info.get("terms", "")),
        parent=row.parent,
        run_id=row.run_id,
        how=HOW.get(stages.get(row.run_id or "", ""), ""),
        chat_form=row.chat_form,
        sha256=row.sha256,
        is_simulated=row.is_simulated,
        is_ours=row.kind in ("policy", "hybrid"),
        ways=[
            (stage, each.title)
            for stage, each in begin.METHODS.items()
            if begin.kind_of(row) in each.models
        ],
        accuracy=str(info.get("accuracy", "")),
    )

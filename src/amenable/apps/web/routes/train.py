"""Train: every method that can be begun by hand, with a form made from its config."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse, Response
from sqlalchemy.orm import Session
from starlette.datastructures import FormData

from amenable.apps.web import words
from amenable.apps.web.answers import go
from amenable.apps.web.shop import InShop, Shop
from amenable.apps.web.train_view import (
    CONFIG,
    LABELS,
    WEIGHT,
    MethodView,
    Typed,
    first_typed,
    form_view,
    knob_problems,
    method_view,
)
from amenable.pipeline import begin
from amenable.pipeline.config import STAGE_CONFIGS, StageConfig, recorded
from amenable.pipeline.form import MOST_LETTERS, FormError, config_of
from amenable.records.errors import AmenableError
from amenable.store import runs

router = APIRouter(prefix="/train")

MOST_FIELDS = 200
MOST_DATA_SETS = 20
MOST_SEED = 2**32 - 1

Stage = Annotated[str, InPath(pattern=r"^[a-z_]{1,20}$")]
Model = Annotated[str, Query(max_length=MOST_LETTERS)]


async def _sent(request: Request) -> FormData:
    return await request.form(max_files=0, max_fields=MOST_FIELDS)


Sent = Annotated[FormData, Depends(_sent)]


@router.get("")
def page(request: Request, shop: InShop) -> HTMLResponse:
    with shop.database.read() as session:
        methods = [method_view(session, stage) for stage in begin.METHODS]
        return shop.page(request, "train.html", session, here="/runs", methods=methods)


@router.get("/{stage}")
def one(stage: Stage, request: Request, shop: InShop, model: Model = "") -> HTMLResponse:
    """`model` is the one whose page led here."""
    with shop.database.read() as session:
        view = method_view(session, stage)
        typed = first_typed(view, STAGE_CONFIGS[stage], model)
        return _form(request, shop, session, view, typed, {})


@router.post("/{stage}")
def start(stage: Stage, request: Request, shop: InShop, sent: Sent) -> Response:
    """Queue the run; a mistake comes back beside its field, with all that was typed."""
    wanted = begin.method(stage)
    typed, problems = _taken(sent)
    config: StageConfig | None = None
    try:
        config = config_of(STAGE_CONFIGS[stage], typed.knobs)
    except FormError as error:
        problems |= knob_problems(STAGE_CONFIGS[stage], error)
    with shop.database.read() as session:
        problems = _wrong_inputs(session, wanted, typed, config) | problems
        view = method_view(session, stage)
        if problems or view.missing or config is None:
            again = _form(request, shop, session, view, typed, problems)
            again.status_code = 422
            return again
    inputs, seed, kept = typed.inputs, int(typed.seed), config
    run_id = shop.writer.submit(lambda session: _begin_once(session, stage, inputs, kept, seed))
    return go(request, f"/runs/{run_id}")


def _form(
    request: Request,
    shop: Shop,
    session: Session,
    view: MethodView,
    typed: Typed,
    problems: Mapping[str, str],
) -> HTMLResponse:
    wanted, kind = begin.method(view.stage), STAGE_CONFIGS[view.stage]
    return shop.page(
        request,
        "train_one.html",
        session,
        here="/runs",
        tabs=[(stage, each.title) for stage, each in begin.METHODS.items()],
        method=view,
        form=form_view(wanted, kind, typed, problems),
        most_letters=MOST_LETTERS,
        most_seed=MOST_SEED,
    )


def _taken(sent: FormData) -> tuple[Typed, dict[str, str]]:
    """The fields of our form, and what is wrong with those that are none or are too long."""
    fields: dict[str, list[str]] = {}
    problems: dict[str, str] = {}
    for name in sent:
        texts = [text for text in sent.getlist(name) if isinstance(text, str)]
        if _is_ours(name, texts):
            fields[name] = texts
        else:
            problems[name] = f"“{words.shorten(name)}” is no field of this form, or came twice."
    typed = Typed(
        model=fields.get("model", [""])[0],
        data=tuple(fields.get("data", ())),
        weights={
            name.removeprefix(WEIGHT): texts[0]
            for name, texts in fields.items()
            if name.startswith(WEIGHT)
        },
        seed=fields.get("seed", [""])[0].strip(),
        knobs={
            name.removeprefix(CONFIG): texts[0]
            for name, texts in fields.items()
            if name.startswith(CONFIG)
        },
    )
    for name in ("model", "data"):
        if any(len(text) > MOST_LETTERS for text in fields.get(name, ())):
            problems[name] = f"{LABELS[name]} must have at most {MOST_LETTERS} letters."
    if any(len(weight) > MOST_LETTERS for weight in typed.weights.values()):
        problems["data"] = f"Weights must have at most {MOST_LETTERS} letters."
    if not (typed.seed.isdecimal() and len(typed.seed) <= 10 and int(typed.seed) <= MOST_SEED):
        problems["seed"] = f"Seed must be a whole number from 0 to {MOST_SEED}."
    return typed, problems


def _is_ours(name: str, texts: Sequence[str]) -> bool:
    if name == "data":
        return 1 <= len(texts) <= MOST_DATA_SETS
    return len(texts) == 1 and (name in ("model", "seed") or name.startswith((CONFIG, WEIGHT)))


def _wrong_inputs(
    session: Session, wanted: begin.Method, typed: Typed, config: StageConfig | None
) -> dict[str, str]:
    checks = {
        "model": lambda: begin.check_model(session, wanted, typed.inputs, config),
        "data": lambda: begin.check_data(session, wanted, typed.inputs, config),
        "config.method": lambda: begin.check_packages(config),
    }
    found: dict[str, str] = {}
    for name, check in checks.items():
        try:
            check()
        except AmenableError as error:
            found[name] = str(error)
    return found


def _begin_once(
    session: Session, stage: str, inputs: Mapping[str, str], config: StageConfig, seed: int
) -> str:
    """A button that was pressed twice begins one run: the same waits, or is at work, already."""
    whole = begin.inputs_of(begin.method(stage), inputs)
    for run in runs.list_runs(session, statuses=runs.OPEN):
        same = (run.stage, run.inputs, run.config, run.seed)
        if same == (stage, whole, recorded(config), seed):
            return run.id
    return begin.begin(session, stage, inputs, config, seed)

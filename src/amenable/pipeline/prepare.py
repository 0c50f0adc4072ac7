"""Bring a model into the library: fetched, checked, its terms accepted, converted once."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from amenable.models.catalogue import KNOWN_MODELS, KnownModel
from amenable.models.fetch import fetch
from amenable.models.load import ModelFacts, OnStep, convert_gguf, copy_folder, from_hub
from amenable.pipeline.config import PrepareConfig
from amenable.pipeline.knobs import read_config
from amenable.pipeline.licences import accept_licence, is_accepted
from amenable.pipeline.progress import Progress
from amenable.pipeline.sources import install_starter
from amenable.pipeline.stage import Context
from amenable.records.errors import ModelError, NotAllowedError
from amenable.store import library
from amenable.store.artifacts import hash_folder, write_whole
from amenable.store.library import ModelEntry
from amenable.store.tables import ModelRow
from amenable.store.workspace import Workspace

READY_MADE = re.compile(r"(^|[-_.])(instruct|chat|it)([-_.]|$)")
"""Whole parts of a name: by letters alone, an Italian base would be taken as finetuned."""
LONGEST_BASE_NAME = 60
"""Of 80; a version's own is the base's with more after it, and is made when all is trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """What is known before the model is there."""

    name: str
    kind: str
    licence: str
    terms: str
    origin: str


def prepare(context: Context) -> dict[str, str]:
    """`inputs.model` is a known name, a hub id, a folder or a GGUF file."""
    config = read_config(PrepareConfig, context.run.config)
    wanted = context.run.inputs["model"]
    known = KNOWN_MODELS.get(wanted)
    if known is not None and config.accept_licence:
        with context.workspace.database.write() as session:
            accept_licence(session, known)
    install_starter(context.workspace)
    name = add_model(context.workspace, wanted, _steps(context), context.run.id)
    with context.workspace.database.read() as session:
        return {"model": library.speaker(session, name).name}


def _steps(context: Context) -> OnStep:
    began = datetime.now(UTC)
    said: list[str] = []

    def on_step(doing: str) -> None:
        context.stop_here()
        said.append(doing)
        spent = (datetime.now(UTC) - began).total_seconds()
        context.log.progress(
            Progress(doing=doing, done=len(said), total=9, unit="steps", seconds_spent=spent)
        )

    return on_step


def add_model(workspace: Workspace, wanted: str, on_step: OnStep, run_id: str | None = None) -> str:
    """Put a model into the library and give its name there; what is there, and whole, stays."""
    known = KNOWN_MODELS.get(wanted)
    source = _source(wanted, known)
    with workspace.database.read() as session:
        there = _there(library.models(session), wanted, source.origin, run_id)
        needs_leave = known is not None and not is_accepted(session, known.name)
    if there is not None:
        _mend(workspace, there, on_step)
        return there.name
    if known is not None and needs_leave:
        raise NotAllowedError(
            f"{known.title} comes under the {known.licence}. {known.terms} "
            "Accept them with --accept-licence, or on the Home page."
        )
    with workspace.database.read() as session:
        name = library.free_name(session, source.name)
    folder = workspace.library / name
    facts = _bring(workspace, wanted, known, folder, on_step)
    sha256 = _seal(folder, source.licence, source.terms, on_step)
    entry = ModelEntry(
        name=name,
        sha256=sha256,
        kind=source.kind,
        chat_form="plain" if source.kind == "base" else facts.family_form,
        licence=source.licence,
        origin=source.origin,
        folder=folder.relative_to(workspace.folder).as_posix(),
        run_id=run_id,
        info={
            "num_parameters": facts.num_parameters,
            "family_form": facts.family_form,
            "architecture": facts.architecture,
            "bytes": sum(path.stat().st_size for path in folder.iterdir()),
            "terms": source.terms,
        },
    )
    with workspace.database.write() as session:
        library.add_model(session, entry)
    return name


def _there(
    rows: Sequence[ModelRow], wanted: str, origin: str, run_id: str | None
) -> ModelRow | None:
    """The model of this name, or what this run has brought: it died between that and its end."""
    by_name = next((row for row in rows if row.name == wanted), None)
    if by_name is not None or run_id is None:
        return by_name
    return next((row for row in rows if (row.run_id, row.origin) == (run_id, origin)), None)


def _seal(folder: Path, licence: str, terms: str, on_step: OnStep) -> str:
    """Lay the terms beside the weights, and take the fingerprint of it all."""
    write_whole(folder / "LICENCE.txt", f"{licence}\n\n{terms}\n".encode())
    on_step("Taking its fingerprint")
    return hash_folder(folder)


def _mend(workspace: Workspace, row: ModelRow, on_step: OnStep) -> None:
    """Bring a model's files anew, under its name, if they are damaged or missing."""
    folder = workspace.folder / row.folder
    on_step(f"Checking the files of {row.name}")
    if folder.is_dir() and hash_folder(folder) == row.sha256:
        return
    _refuse_hopeless(row, folder)
    on_step(f"The files of {row.name} are damaged or missing: they are brought anew")
    known = KNOWN_MODELS.get(row.name)
    if known is not None and known.licence != row.licence:
        known = None  # another one's copy, under a known name
    _bring(workspace, row.origin if known is None else known.name, known, folder, on_step)
    sha256 = _seal(folder, row.licence, str(row.info.get("terms", "")), on_step)
    if sha256 != row.sha256:
        on_step(_say_changed(row.name, _take_over(workspace, row.name, sha256)))


def _refuse_hopeless(row: ModelRow, folder: Path) -> None:
    """What was made here, or came from a place that is gone, cannot be brought again."""
    is_gone = Path(row.origin).is_absolute() and not Path(row.origin).exists()
    is_ours = library.is_made_here(row)
    if not is_ours and not is_gone:
        return
    why = "it was trained here" if is_ours else f"{row.origin} is gone"
    raise ModelError(
        f"The files of {row.name} are damaged or missing, and cannot be brought again: {why}. "
        f"Put {folder} back from a copy."
    )


def _take_over(workspace: Workspace, name: str, sha256: str) -> list[str]:
    """Another conversion under the same name; gives the versions whose adapters fit it no more."""
    with workspace.database.write() as session:
        library.model(session, name).sha256 = sha256
        return [row.name for row in library.models(session) if row.base == name]


def _say_changed(name: str, versions: Sequence[str]) -> str:
    said = f"{name} is now another conversion than before"
    if not versions:
        return said
    return f"{said}, on which its versions cannot speak: {', '.join(versions)}"


def _source(wanted: str, known: KnownModel | None) -> _Source:
    if known is not None:
        return _Source(
            name=known.name,
            kind=known.kind,
            licence=known.licence,
            terms=known.terms,
            origin=known.origin,
        )
    name = Path(wanted).name.removesuffix(".gguf")
    cleaned = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
    cleaned = cleaned.lower()
    # Publishers mark what is finetuned; everything else is taken as a base.
    is_ready = READY_MADE.search(cleaned) is not None
    return _Source(
        name=cleaned.lstrip("._-")[:LONGEST_BASE_NAME] or "model",
        kind="instruct" if is_ready else "base",
        licence="not stated",
        terms="The terms of this model were not read; its publisher's apply.",
        origin=wanted,
    )


def _bring(
    workspace: Workspace, wanted: str, known: KnownModel | None, folder: Path, on_step: OnStep
) -> ModelFacts:
    if known is not None:
        workspace.size_check(2 * known.download_bytes + known.disk_bytes)
        return convert_gguf(fetch(known, workspace.downloads, on_step), folder, on_step)
    path = Path(wanted)
    if path.is_dir():
        return copy_folder(path, folder, on_step)
    if path.is_file() or wanted.endswith(".gguf"):
        return convert_gguf(path, folder, on_step)
    if _is_path(wanted):
        raise ModelError(f"There is no file or folder {wanted}.")
    return from_hub(wanted, folder, on_step)


def _is_path(wanted: str) -> bool:
    """Whether it can be no hub id, which is NAME or OWNER/NAME.

    >>> [_is_path(each) for each in ("google/gemma-3-270m", "./gemma", "/models/gemma", "~/gemma")]
    [False, True, True, True]
    """
    return wanted.startswith((".", "~")) or Path(wanted).is_absolute() or wanted.count("/") > 1

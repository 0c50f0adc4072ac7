"""A run into a parcel, to go on with on another machine, or to come back from there."""

import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.orm import Session

from amenable.pipeline.frozen import LESSONS, freeze
from amenable.pipeline.parcel import (
    MANIFEST,
    MODELS,
    RUN,
    Manifest,
    PackedFile,
    PackedModel,
    files_of,
    opened,
)
from amenable.pipeline.stage import versions
from amenable.records.errors import ConflictError, DataError
from amenable.records.run import Run
from amenable.store import library, runs
from amenable.store.artifacts import CHUNK_BYTES, flush_folder
from amenable.store.library import ModelEntry
from amenable.store.tables import ModelRow
from amenable.store.workspace import Workspace


def file_name(run: Run) -> str:
    """By its status too: what comes back is another file than what left."""
    return f"{run.id}-{run.status}.zip"


def set_down(workspace: Workspace, run_id: str) -> Run:
    """The run, fit to be packed: one that waits is stopped, so that it is not executed twice."""
    with workspace.database.write() as session:
        run = runs.get(session, run_id)
        if run.stage not in LESSONS:
            stages = ", ".join(LESSONS)
            raise ConflictError(f"Run {run_id} stays: only runs of {stages} can be packed.")
        if run.status == "running":
            raise ConflictError(
                f"Run {run_id} is running. Stop it first: amenable runs stop {run_id}"
            )
        runs.request_stop(session, run_id)
        return runs.get(session, run_id)


def send(workspace: Workspace, run: Run, path: Path, *, with_models: bool = False) -> Manifest:
    """Write the parcel of a run that was set down: whole or not at all, and read back."""
    if path.exists():
        raise DataError(f"There is a file {path} already. Name another one with --to.")
    manifest = _manifest(workspace, run, with_models=with_models)
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.unfinished")
    try:
        _write(workspace, manifest, unfinished)
        with opened(unfinished) as parcel:
            parcel.check()
        with workspace.database.read() as session:
            if runs.get(session, run.id) != run:
                raise ConflictError(f"Run {run.id} went on while it was packed. Stop it first.")
        unfinished.rename(path)
    finally:
        unfinished.unlink(missing_ok=True)
    flush_folder(path.parent)
    return manifest


def _manifest(workspace: Workspace, run: Run, *, with_models: bool) -> Manifest:
    folder = workspace.run_folder(run.id)
    with workspace.database.read() as session:
        if run.status != "done":
            freeze(session, run, folder)
        rows = _models(session, run, with_models=with_models)
    return Manifest(
        packed_with=versions(),
        run=run,
        files=files_of(folder),
        models=[
            PackedModel(
                entry=_entry(row),
                files=files_of(workspace.folder / row.folder),
                is_carried=is_carried,
            )
            for row, is_carried in rows
        ],
    )


def _models(session: Session, run: Run, *, with_models: bool) -> list[tuple[ModelRow, bool]]:
    """What it began with and what it made, parents first, and whether each is carried.

    An adapter is small and was made here: it is carried, and what it was made from is named.
    """
    rows = {row.name: row for row in library.models(session)}
    made = next((row.name for row in rows.values() if row.run_id == run.id), None)
    if (made is None) == (run.status == "done"):
        what = "is done, but its model was removed" if made is None else f"has made {made} already"
        raise ConflictError(f"Run {run.id} {what}: there is nothing to pack.")
    found: dict[str, bool] = {}
    waiting = [run.inputs.get("model"), made]
    while waiting:
        if (name := waiting.pop()) is None or name in found:
            continue
        row = library.model(session, name)
        is_carried = with_models or row.base is not None or row.name == made
        found[row.name] = is_carried
        if is_carried:
            waiting += [row.parent, row.base]
    return [(row, found[name]) for name, row in rows.items() if name in found]


def _entry(row: ModelRow) -> ModelEntry:
    return ModelEntry(
        name=row.name,
        sha256=row.sha256,
        kind=row.kind,
        chat_form=row.chat_form,
        licence=row.licence,
        origin=row.origin,
        folder=row.folder,
        parent=row.parent,
        base=row.base,
        run_id=row.run_id,
        is_simulated=row.is_simulated,
        info=row.info,
    )


def _write(workspace: Workspace, manifest: Manifest, path: Path) -> None:
    """Without times of the clock: the same run packed twice is the same file."""
    with path.open("xb") as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(zipfile.ZipInfo(MANIFEST), manifest.to_json())
            for name, source, packed in _sources(workspace, manifest):
                info = zipfile.ZipInfo(name)
                info.file_size = packed.size
                with source.open("rb") as found, archive.open(info, "w") as target:
                    shutil.copyfileobj(found, target, CHUNK_BYTES)
        file.flush()
        os.fsync(file.fileno())


def _sources(workspace: Workspace, manifest: Manifest) -> Iterator[tuple[str, Path, PackedFile]]:
    for name, packed in manifest.files.items():
        yield f"{RUN}/{name}", workspace.run_folder(manifest.run.id) / name, packed
    for model in manifest.models:
        for name, packed in model.files.items() if model.is_carried else ():
            folder = workspace.folder / model.entry.folder
            yield f"{MODELS}/{model.entry.name}/{name}", folder / name, packed

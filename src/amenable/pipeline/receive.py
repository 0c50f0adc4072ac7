"""A parcel into a workspace: everything is checked before anything is put in place."""

import re
import shutil
from collections.abc import Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy.orm import Session

from amenable.models.catalogue import KNOWN_MODELS
from amenable.pipeline.parcel import (
    MODELS,
    RUN,
    Files,
    Manifest,
    PackedModel,
    Parcel,
    files_of,
    opened,
)
from amenable.records.errors import ConflictError, ModelError
from amenable.records.run import Run
from amenable.store import library, runs
from amenable.store.artifacts import swapped
from amenable.store.library import ModelEntry
from amenable.store.tables import ModelRow
from amenable.store.workspace import Workspace

STATE = re.compile(r"checkpoint/step-(\d{1,9})/state\.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    manifest: Manifest
    run: Run
    """As it is here now."""
    added: tuple[str, ...]
    """Models that the library has from this parcel."""
    is_changed: bool
    """False where all of it was here before."""


def receive(workspace: Workspace, path: Path) -> Received:
    """Put a run from elsewhere in place, or bring the unfinished one here up to date."""
    with workspace.lock("import"), opened(path) as parcel:
        parcel.check()
        manifest = parcel.manifest
        with workspace.database.read() as session:
            here = runs.find(session, manifest.run.id)
            if here is not None and _is_here(session, workspace, manifest, here):
                return Received(manifest=manifest, run=here, added=(), is_changed=False)
            arrival = _arrival(session, workspace, manifest)
        workspace.size_check(manifest.num_bytes)
        arrival.put(workspace, parcel, here)
    added = tuple(entry.name for entry in arrival.entries.values())
    return Received(manifest=manifest, run=arrival.run, added=added, is_changed=True)


def _is_here(session: Session, workspace: Workspace, manifest: Manifest, here: Run) -> bool:
    """Whether this very state is; refused is what would undo work, or another run's."""
    run = manifest.run
    if _origin(here) != _origin(run):
        raise ConflictError(f"Another run is called {run.id} here: nothing was changed.")
    if here.status in runs.OPEN:
        raise ConflictError(
            f"Run {run.id} is {here.status} here. Stop it first: amenable runs stop {run.id}"
        )
    files = files_of(workspace.runs / run.id)
    made = _made_by(session, run)
    is_made = manifest.made is None or (made and made.sha256 == manifest.made.entry.sha256)
    if here.status == run.status and files == manifest.files and is_made:
        return True
    if here.status == "done":
        other = "with another result" if run.status == "done" else "before its end"
        raise ConflictError(
            f"Run {run.id} is done here, and this file has it {other}: nothing was changed."
        )
    if run.status != "done" and _step(manifest.files) < _step(files):
        raise ConflictError(
            f"Run {run.id} is at step {_step(files)} here, and at step {_step(manifest.files)} in "
            "this file: nothing was changed."
        )
    return False


def _origin(run: Run) -> tuple[object, ...]:
    return run.stage, run.inputs, run.config, run.seed, run.created_at


def _step(files: Iterable[str]) -> int:
    """Of the newest checkpoint."""
    return max((int(found[1]) for name in files if (found := STATE.fullmatch(name))), default=0)


def _made_by(session: Session, run: Run) -> ModelRow | None:
    return next((row for row in library.models(session) if row.run_id == run.id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """What is to be put in place."""

    run: Run
    entries: Mapping[str, ModelEntry]
    """Models that are not here, by their names in the parcel."""

    def put(self, workspace: Workspace, parcel: Parcel, before: Run | None) -> None:
        """All of it or nothing; `before` is the run as it was when this was decided."""
        with ExitStack() as filled, ExitStack() as swaps:
            places = [
                (filled.enter_context(_filled(parcel, inside, files, folder)), folder)
                for inside, files, folder in self._folders(workspace, parcel.manifest)
            ]
            with workspace.database.write() as session:
                # From here on no worker can take the run, and folders and rows change together.
                if runs.find(session, self.run.id) != before:
                    raise ConflictError(f"Run {self.run.id} was changed meanwhile. Import again.")
                for unfinished, folder in places:
                    swaps.enter_context(swapped(unfinished, folder))
                for entry in self.entries.values():
                    library.add_model(session, entry)
                runs.bring(session, self.run)

    def _folders(
        self, workspace: Workspace, manifest: Manifest
    ) -> Generator[tuple[str, Files, Path]]:
        yield RUN, manifest.files, workspace.runs / self.run.id
        for model in manifest.models:
            if (entry := self.entries.get(model.entry.name)) is not None:
                folder = workspace.folder / entry.folder
                yield f"{MODELS}/{model.entry.name}", model.files, folder


def _arrival(session: Session, workspace: Workspace, manifest: Manifest) -> Arrival:
    rows = {row.name: row for row in library.models(session)}
    run = manifest.run
    entries: dict[str, ModelEntry] = {}
    for model in manifest.models:
        name = name_there = model.entry.name
        if model is manifest.made:
            name = _name_of_made(session, model.entry, run)
            run = replace(run, outputs={**run.outputs, "model": name})
        if name in rows:
            _check_same(workspace, rows[name], model)
        elif model.is_carried:
            is_known = model is manifest.made or _is_run_here(session, model.entry.run_id)
            entries[name_there] = replace(
                model.entry,
                name=name,
                folder=(workspace.library / name).relative_to(workspace.folder).as_posix(),
                run_id=model.entry.run_id if is_known else None,
            )
        else:
            raise ModelError(_how_to_bring(model.entry))
    return Arrival(run=run, entries=entries)


def _name_of_made(session: Session, entry: ModelEntry, run: Run) -> str:
    """Another version may have got its name here meanwhile."""
    kept = _made_by(session, run)
    return library.free_name(session, entry.name) if kept is None else kept.name


def _is_run_here(session: Session, run_id: str | None) -> bool:
    return run_id is not None and runs.find(session, run_id) is not None


def _check_same(workspace: Workspace, row: ModelRow, model: PackedModel) -> None:
    here = files_of(workspace.folder / row.folder)
    names = sorted({*here, *model.files})
    other = [name for name in names if here.get(name) != model.files.get(name)]
    if other:
        raise ModelError(
            f"{row.name} here is not the model of this run: {', '.join(other[:5])} "
            f"{'differ' if other[1:] else 'differs'}. Import it into a workspace with that very "
            f"model; --with-models packs it too."
        )


def _how_to_bring(entry: ModelEntry) -> str:
    if entry.name in KNOWN_MODELS:
        how = f"Bring it first: amenable models add {entry.name}"
    else:
        how = f"It is {entry.origin}. Pack the run with --with-models, which carries it too."
    return f"This run needs {entry.name}, which is not in this workspace. {how}"


@contextmanager
def _filled(parcel: Parcel, inside: str, files: Files, folder: Path) -> Generator[Path]:
    """A folder beside its place, gone again unless it was put there."""
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        parcel.unpack(inside, files, unfinished)
        yield unfinished
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)

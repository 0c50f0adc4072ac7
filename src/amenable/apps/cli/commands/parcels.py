"""amenable runs pack and import: a run carried to another machine, and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from amenable.apps.cli.options import (
    DEFAULT_WORKSPACE,
    Flag,
    JsonFlag,
    NoDefault,
    WorkspaceFolder,
    again,
)
from amenable.apps.cli.out import Out
from amenable.apps.cli.places import existing, opened
from amenable.apps.web import words

if TYPE_CHECKING:
    from amenable.pipeline.parcel import Manifest
    from amenable.pipeline.receive import Received

DECIDING = ("amenable", "torch", "transformers")


@dataclass(frozen=True, kw_only=True)
class PackArguments:
    run: tyro.conf.Positional[str]
    """Its id, as runs list gives it: a training run that is not at work."""
    to: Annotated[Path | None, tyro.conf.arg(metavar="FILE"), NoDefault] = None
    """A file that is not there yet; left out, RUN-STATUS.zip where you are."""
    with_models: Flag = False
    """Carry the base model too, under its own licence; else it is known by its hashes alone."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


@dataclass(frozen=True, kw_only=True)
class ImportArguments:
    file: tyro.conf.Positional[Path]
    """What runs pack has written."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


def pack(arguments: PackArguments, out: Out) -> dict[str, Any]:
    from amenable.pipeline.send import file_name, send, set_down
    from amenable.store import runs

    with existing(arguments.workspace) as workspace:
        with workspace.database.read() as session:
            was_waiting = runs.get(session, arguments.run).status == "queued"
        run = set_down(workspace, arguments.run)
        if was_waiting:
            out.say(f"Run {run.id} waited here and is stopped now, not to be executed twice.")
        path = (arguments.to or Path(file_name(run))).expanduser().absolute()
        manifest = send(workspace, run, path, with_models=arguments.with_models)
    size = words.size(path.stat().st_size)
    out.say(f"Run {run.id} ({run.status}) is in {path}: {size}, {_models(manifest)}.")
    out.say(f"There: amenable runs import {path.name}")
    return {"file": str(path), **_as_json(manifest)}


def import_run(arguments: ImportArguments, out: Out) -> dict[str, Any]:
    from amenable.pipeline.receive import receive

    with opened(arguments.workspace) as workspace:
        received = receive(workspace, arguments.file.expanduser())
    run = received.run
    if received.is_changed:
        _say(received, out)
    else:
        out.say(f"Run {run.id} is here already, just as in this file: nothing was changed.")
    if run.status != "done":
        out.say(f"Go on with: {again(f'runs resume {run.id}', arguments.workspace)}")
    found = {**_as_json(received.manifest), "outputs": dict(run.outputs)}
    return {**found, "added": list(received.added), "changed": received.is_changed}


def _say(received: "Received", out: Out) -> None:
    run, manifest = received.run, received.manifest
    num_files = len(manifest.carried)
    out.say(f"Run {run.id} ({run.status}) is here: {num_files} files, every hash as it was packed.")
    if run.status == "done":
        out.say(f"It made {run.outputs['model']}.")
    for model in manifest.models:
        if model.entry.name in received.added and model.entry.base is None:
            out.say(f"{model.entry.name} came along, under its licence: {model.entry.licence}.")
    if other := _other_versions(manifest.packed_with):
        out.say(f"It was packed with {other}: what is made here can differ in the last digit.")


def _other_versions(packed_with: Mapping[str, str]) -> str:
    from amenable.pipeline.stage import versions

    here = versions()
    found = {name: packed_with.get(name) for name in DECIDING}
    return ", ".join(
        f"{name} {there} (here {here[name]})"
        for name, there in found.items()
        if there is not None and name in here and here[name] != there
    )


def _models(manifest: "Manifest") -> str:
    carried = [each.entry.name for each in manifest.models if each.is_carried]
    named = [each.entry.name for each in manifest.models if not each.is_carried]
    found = [f"with {', '.join(carried)}"] * bool(carried)
    found += [f"without {', '.join(named)}, known by its hashes"] * bool(named)
    return ", ".join(found) or "with all that it needs"


def _as_json(manifest: "Manifest") -> dict[str, Any]:
    run = manifest.run
    return {
        "run": run.id,
        "stage": run.stage,
        "status": run.status,
        "outputs": dict(run.outputs),
        "num_files": len(manifest.carried),
        "models": {each.entry.name: each.entry.sha256 for each in manifest.models},
        "carried": [each.entry.name for each in manifest.models if each.is_carried],
    }

"""amenable models: what is in the library, and how the models descend from each other."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from amenable.apps.cli.options import DEFAULT_WORKSPACE, Flag, JsonFlag, WorkspaceFolder, again
from amenable.apps.cli.out import MARKS, Out
from amenable.apps.cli.places import existing, is_workspace, needs_training_packages, opened
from amenable.apps.web import words
from amenable.models.catalogue import KNOWN_MODELS, KnownModel
from amenable.records.errors import NotAllowedError

if TYPE_CHECKING:
    from amenable.store.library import FamilyNode
    from amenable.store.tables import ModelRow
    from amenable.store.workspace import Workspace

KINDS = {
    "base": "base model",
    "policy": "instruct model, trained here",
    "instruct": "instruct model of others",
    "reward": "reward model, trained here",
}


@dataclass(frozen=True, kw_only=True)
class ListArguments:
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


@dataclass(frozen=True, kw_only=True)
class ShowArguments:
    model: tyro.conf.Positional[str]
    """Its name in the library, or a known model that is not added yet."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


@dataclass(frozen=True, kw_only=True)
class AddArguments:
    model: tyro.conf.Positional[str]
    """gemma-3-270m, smollm2-135m-instruct, ./folder, ./file.gguf, or publisher/model."""
    accept_licence: Flag = False
    """Say that you have read the licence terms and accept them."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


@dataclass(frozen=True, kw_only=True)
class RemoveArguments:
    model: tyro.conf.Positional[str]
    """Its name in the library."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


def list_models(arguments: ListArguments, out: Out) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    if is_workspace(arguments.workspace):
        from amenable.store import library

        with existing(arguments.workspace) as workspace, workspace.database.read() as session:
            tree = list(_walk(library.family_tree(session)))
            found = [_as_json(row) for row, _ in tree]
            if tree:
                _table(out, tree)
    known = [each for name, each in KNOWN_MODELS.items() if name not in {m["name"] for m in found}]
    if not found:
        out.say("No model is here yet.")
    if known:
        out.say("To be added by name (amenable models add NAME), or from a folder, file or hub id:")
        out.table(
            ("Name", "Is", " Download", "Licence"),
            [(k.name, KINDS[k.kind], words.size(k.download_bytes), k.licence) for k in known],
        )
    return {"models": found, "known": [_known_as_json(each) for each in known]}


def _table(out: Out, tree: list[tuple["ModelRow", int]]) -> None:
    rows = [
        (
            f"{'  ' * depth}{MARKS.get(row.kind, '●')} {row.name}",
            _is(row),
            words.parameters(row.info.get("num_parameters")),
            words.size(row.info.get("bytes")),
            row.licence,
        )
        for row, depth in tree
    ]
    out.table(("Name", "Is", "Parameters", " On disk", "Licence"), rows)


def _is(row: "ModelRow") -> str:
    right = f", right on {row.info['accuracy']}" if "accuracy" in row.info else ""
    return (
        KINDS.get(row.kind, row.kind) + right + (" (simulated votes)" if row.is_simulated else "")
    )


def _walk(nodes: "Sequence[FamilyNode]", depth: int = 0) -> "Iterator[tuple[ModelRow, int]]":
    for node in nodes:
        yield node.model, depth
        yield from _walk(node.children, depth + 1)


def _as_json(row: "ModelRow") -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": row.kind,
        "sha256": row.sha256,
        "parent": row.parent,
        "base": row.base,
        "chat_form": row.chat_form,
        "licence": row.licence,
        "origin": row.origin,
        "run": row.run_id,
        "simulated_people": row.is_simulated,
        "info": dict(row.info),
    }


def _known_as_json(known: KnownModel) -> dict[str, Any]:
    return {
        "name": known.name,
        "title": known.title,
        "kind": known.kind,
        "licence": known.licence,
        "terms": known.terms,
        "origin": known.origin,
        "download_bytes": known.download_bytes,
    }


def show_model(arguments: ShowArguments, out: Out) -> dict[str, Any]:
    from amenable.store import library

    known = KNOWN_MODELS.get(arguments.model)
    is_here = is_workspace(arguments.workspace)
    if known is not None and not (is_here and _is_in_library(arguments)):
        say_terms(out, known)
        out.say(f"Not added yet: {again(f'models add {known.name}', arguments.workspace)}")
        return _known_as_json(known)
    with existing(arguments.workspace) as workspace, workspace.database.read() as session:
        row = library.model(session, arguments.model)
        children = [each.name for each in library.models(session) if each.parent == row.name]
        facts = {
            "Is": KINDS.get(row.kind, row.kind),
            "Right on": str(row.info.get("accuracy", "")),
            "Comes from": row.origin,
            "Licence": row.licence,
            "Terms": str(row.info.get("terms", "")),
            "Parameters": words.parameters(row.info.get("num_parameters")),
            "On disk": words.size(row.info.get("bytes")),
            "Chat form": row.chat_form,
            "Parent": row.parent or "",
            "Learned on": "layers in 4 bits (QLoRA)" if library.IN_FOUR_BITS in row.info else "",
            "Made from it": ", ".join(children),
            "Made by run": row.run_id or "",
            "Simulated votes": "yes, they went into it" if row.is_simulated else "",
            "Folder": str(workspace.folder / row.folder),
            "sha256": row.sha256,
        }
        style = {"base": "base", "policy": "instruct"}.get(row.kind, "")
        out.say(f"{MARKS.get(row.kind, '●')} {row.name}", style=style)
        for about, fact in facts.items():
            if fact:
                out.say(f"  {about}: {fact}")
        return _as_json(row) | {"children": children, "folder": facts["Folder"]}


def _is_in_library(arguments: ShowArguments) -> bool:
    with existing(arguments.workspace) as workspace:
        return is_there(workspace, arguments.model)


def is_there(workspace: "Workspace", name: str) -> bool:
    from amenable.store import library

    with workspace.database.read() as session:
        return any(row.name == name for row in library.models(session))


def add(arguments: AddArguments, out: Out) -> dict[str, Any]:
    needs_training_packages()
    from amenable.pipeline.licences import accept_licence
    from amenable.store import library

    known = KNOWN_MODELS.get(arguments.model)
    with opened(arguments.workspace) as workspace:
        if known is not None and not is_there(workspace, known.name):
            if not accepts(workspace, known, out, is_said=arguments.accept_licence):
                raise unaccepted(known)
            with workspace.database.write() as session:
                accept_licence(session, known)
        # From here on torch is needed, which takes seconds to import.
        from amenable.pipeline.prepare import add_model
        from amenable.pipeline.sources import install_starter

        install_starter(workspace)
        place = place_of(workspace, arguments.model)
        name = add_model(workspace, place, lambda doing: out.say(doing, style="quiet"))
        with workspace.database.read() as session:
            found = _as_json(library.model(session, name))
    out.say(f"{name} is in the library. Talk to it: {again(f'chat {name}', arguments.workspace)}")
    return found


def place_of(workspace: "Workspace", wanted: str) -> str:
    """A path as it will be found from everywhere; names of the library and known ones stay."""
    if wanted in KNOWN_MODELS or is_there(workspace, wanted):
        return wanted
    path = Path(wanted).expanduser()
    return str(path.resolve()) if path.exists() else wanted


def accepts(workspace: "Workspace", known: KnownModel, out: Out, *, is_said: bool) -> bool:
    """Whether the terms are accepted, now or before; asked once where somebody can answer."""
    from amenable.pipeline.licences import is_accepted

    with workspace.database.read() as session:
        if is_said or is_accepted(session, known.name):
            return True
    if out.is_json or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    say_terms(out, known)
    try:
        answer = out.console.input("Do you accept these terms? (y/n) ")
    except EOFError:
        return False
    return answer.strip().casefold() in ("y", "yes")


def unaccepted(known: KnownModel) -> NotAllowedError:
    return NotAllowedError(
        f"{known.title} comes under the {known.licence}. {known.terms} "
        "Say --accept-licence if you have read these terms and accept them."
    )


def say_terms(out: Out, known: KnownModel) -> None:
    out.say(f"{MARKS[known.kind]} {known.title}", style="base" if known.kind == "base" else "")
    out.say(f"  Comes from: {known.origin}")
    out.say(f"  Licence: {known.licence}")
    out.say(f"  Terms: {known.terms}")
    sizes = words.size(known.download_bytes), words.size(known.disk_bytes)
    out.say(f"  Download: {sizes[0]}; on disk then {sizes[1]}")


def remove(arguments: RemoveArguments, out: Out) -> dict[str, Any]:
    from amenable.store import library

    with existing(arguments.workspace) as workspace:
        with workspace.database.write() as session:
            folder = library.remove_model(session, arguments.model)
        shutil.rmtree(workspace.folder / folder, ignore_errors=True)
    out.say(f"{arguments.model} was removed.")
    return {"removed": arguments.model}

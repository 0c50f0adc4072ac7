"""amenable data: files of one's own in, checked row by row, and which sets the loop uses."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from amenable.apps.cli.options import DEFAULT_WORKSPACE, JsonFlag, NoDefault, WorkspaceFolder, again
from amenable.apps.cli.out import Out
from amenable.apps.cli.places import existing, opened
from amenable.apps.web import words

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from amenable.pipeline.data import ImportResult
    from amenable.store.tables import DatasetRow

EXAM_SHARE = 0.2
PROBLEMS_SHOWN = 10
EXAMPLES_SHOWN = 3
LONGEST_SHOWN = 400


@dataclass(frozen=True, kw_only=True)
class ImportArguments:
    file: tyro.conf.Positional[Path]
    """JSONL, JSON, CSV, TSV, Parquet or plain text."""
    name: Annotated[str, tyro.conf.arg(name="as", metavar="NAME")]
    """What the data set is called here."""
    kind: Annotated[str | None, NoDefault] = None
    """The form of its rows, such as messages or preference; found out if not said."""
    licence: str = "not stated"
    """On whose terms the data may be used."""
    exam_share: Annotated[float | None, NoDefault] = None
    """Share of rows to seal: they measure, no training reads them (0.2 for prompts, else 0)."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


@dataclass(frozen=True, kw_only=True)
class UseArguments:
    demonstrations: tuple[str, ...] = ()
    """Data sets with replies to learn from; "starter" is the one that comes with Amenable."""
    prompts: tuple[str, ...] = ()
    """Data sets of prompts, whose replies people judge; "starter" likewise."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


@dataclass(frozen=True, kw_only=True)
class ListArguments:
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


@dataclass(frozen=True, kw_only=True)
class ShowArguments:
    name: tyro.conf.Positional[str]
    """Its name, as data list gives it."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


def import_data(arguments: ImportArguments, out: Out) -> dict[str, Any]:
    from amenable.pipeline.data import import_file

    share = arguments.exam_share
    if share is None:
        share = EXAM_SHARE if _holds_prompts(arguments) else 0.0
    with opened(arguments.workspace) as workspace:
        result = import_file(
            workspace,
            arguments.file,
            name=arguments.name,
            kind=arguments.kind,
            licence=arguments.licence,
            source=f"imported: {arguments.file.name}",
            exam_share=share,
        )
    _say_result(out, arguments, result)
    return result.to_json()


def _holds_prompts(arguments: ImportArguments) -> bool:
    from amenable.datasets.examples import PromptExample
    from amenable.datasets.read import ReadRow, read

    rows = read(arguments.file, kind=arguments.kind).rows
    first = next((row for row in rows if isinstance(row, ReadRow)), None)
    return first is not None and isinstance(first.example, PromptExample)


def _say_result(out: Out, arguments: ImportArguments, result: "ImportResult") -> None:
    if result.is_repeat:
        out.say("The same file was imported before; nothing changed.")
    sealed = f", {result.num_exam:,} of them sealed as an exam" if result.num_exam else ""
    out.say(f"{arguments.name}: {result.stored:,} rows of kind {result.kind} are kept{sealed}.")
    if result.problems:
        out.say(f"{result.rejected:,} rows were refused:", style="wrong")
        for problem in result.problems[:PROBLEMS_SHOWN]:
            out.say(f"  {problem}")
        if result.rejected > PROBLEMS_SHOWN:
            out.say(f"  … and {result.rejected - PROBLEMS_SHOWN:,} more")
    out.say(f"See it: {again(f'data show {arguments.name}', arguments.workspace)}")


def use(arguments: UseArguments, out: Out) -> dict[str, Any]:
    from amenable.pipeline.sources import (
        STARTER_DEMONSTRATIONS,
        STARTER_PROMPTS,
        Sources,
        install_starter,
    )

    with opened(arguments.workspace) as workspace:
        install_starter(workspace)
        with workspace.database.write() as session:
            before = Sources.of(session)
            chosen = Sources(
                demonstrations=_named(arguments.demonstrations, STARTER_DEMONSTRATIONS)
                or before.demonstrations,
                prompts=_named(arguments.prompts, STARTER_PROMPTS) or before.prompts,
            )
            chosen.keep(session)
    out.say(f"The loop learns from {', '.join(chosen.demonstrations)}.")
    out.say(f"People judge replies to {', '.join(chosen.prompts)}.")
    out.say(f"Next: {again('start', arguments.workspace)}")
    return {"demonstrations": list(chosen.demonstrations), "prompts": list(chosen.prompts)}


def _named(names: tuple[str, ...], starter: str) -> tuple[str, ...]:
    return tuple(starter if name == "starter" else name for name in names)


def list_data(arguments: ListArguments, out: Out) -> dict[str, Any]:
    from amenable.pipeline.sources import Sources
    from amenable.store import library

    with existing(arguments.workspace) as workspace, workspace.database.read() as session:
        sources = Sources.of(session)
        used = {*sources.demonstrations, *sources.prompts}
        found = [
            _as_json(session, row) | {"used": row.name in used} for row in library.datasets(session)
        ]
    if found:
        rows = [
            (
                str(each["name"]),
                str(each["kind"]),
                f"{each['rows']:,}",
                f"{each['sealed']:,}",
                f"{each['rejected']:,}",
                "yes" if each["used"] else "",
                str(each["licence"]),
            )
            for each in found
        ]
        out.table(("Name", "Kind", " Rows", " Sealed", " Refused", "Used", "Licence"), rows)
    else:
        out.say("No data is here yet. The starter set comes with the first start, or import:")
        out.say("  amenable data import FILE --as NAME")
    return {"datasets": found}


def _as_json(session: "Session", row: "DatasetRow") -> dict[str, Any]:
    from amenable.store import library

    return {
        "name": row.name,
        "kind": row.kind,
        "rows": row.num_rows,
        "sealed": library.num_examples(session, row.name, exam=True),
        "rejected": row.num_rejected,
        "licence": row.licence,
        "source": row.source,
        "sha256": row.sha256,
    }


def show_data(arguments: ShowArguments, out: Out) -> dict[str, Any]:
    from amenable.store import library

    with existing(arguments.workspace) as workspace, workspace.database.read() as session:
        row = library.dataset(session, arguments.name)
        found = _as_json(session, row)
        problems = [dict(each) for each in row.problems]
        first = library.examples(session, row.name)[:EXAMPLES_SHOWN]
    out.say(f"{found['name']}: {found['rows']:,} rows of kind {found['kind']}")
    out.say(f"  Comes from: {found['source']}")
    out.say(f"  Licence: {found['licence']}")
    if found["sealed"]:
        out.say(f"  Sealed as an exam: {found['sealed']:,}")
    for example in first:
        out.say()
        for line in _lines(example):
            out.say(f"  {words.shorten(line, LONGEST_SHOWN)}")
    if problems:
        out.say()
        out.say(f"{found['rejected']:,} rows were refused, first of all:", style="wrong")
        for problem in problems[:PROBLEMS_SHOWN]:
            key = f", {problem['key']}" if problem["key"] else ""
            out.say(f"  row {problem['row']}{key}: {problem['reason']}")
    return found | {"problems": problems, "examples": first}


def _lines(example: dict[str, Any]) -> list[str]:
    """A row as a person reads it: who says what, else what stands under which key."""
    lines: list[str] = []
    for key, value in example.items():
        if isinstance(value, list) and value and isinstance(value[0], dict) and "role" in value[0]:
            lines += [f"{turn['role']}: {turn['content']}" for turn in value]
        elif isinstance(value, str) and value and key != "type":
            lines.append(f"{key}: {value}")
    return lines

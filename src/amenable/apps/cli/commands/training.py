"""amenable finetune, align, reward and compare: the stages by hand, here or by the worker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from amenable.apps.cli.options import DEFAULT_WORKSPACE, SEED, JsonFlag, WorkspaceFolder, again
from amenable.apps.cli.out import MARKS, Out, UsageError
from amenable.apps.cli.places import existing, needs_training_packages
from amenable.pipeline.config import (
    AlignConfig,
    CompareConfig,
    FinetuneConfig,
    RewardConfig,
    recorded,
)

if TYPE_CHECKING:
    from amenable.evaluation.agreement import RewardResult
    from amenable.records.measurement import Measured
    from amenable.records.run import Run
    from amenable.reports.result import Result
    from amenable.store.workspace import Workspace

Knobs = tyro.conf.arg(name="")


@dataclass(frozen=True, kw_only=True)
class FinetuneArguments:
    model: tyro.conf.Positional[str]
    """A base model of the library (amenable models list)."""
    data: Annotated[
        tuple[str, ...], tyro.conf.arg(metavar="NAME[:WEIGHT] …", help_behavior_hint="")
    ] = ()
    """Demonstrations to learn from (starter: what ships with Amenable), and how often an epoch
    sees them: NAME:0.5 half of the rows, NAME:2 all of them twice; left out, what the loop uses."""
    config: Annotated[FinetuneConfig, Knobs] = field(default_factory=FinetuneConfig)
    seed: int = SEED
    """Decides everything that is drawn by chance."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


@dataclass(frozen=True, kw_only=True)
class AlignArguments:
    model: tyro.conf.Positional[str]
    """A version that was finetuned with LoRA here (amenable models list)."""
    data: tuple[str, ...] = ()
    """Imported data sets of preference pairs to learn from too; with kto also of rated replies."""
    config: Annotated[AlignConfig, Knobs] = field(default_factory=AlignConfig)
    seed: int = SEED
    """Decides everything that is drawn by chance."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


@dataclass(frozen=True, kw_only=True)
class RewardArguments:
    model: tyro.conf.Positional[str]
    """A version or a base model, from which it is trained (amenable models list)."""
    data: tuple[str, ...] = ()
    """Imported data sets of preference pairs to learn from too."""
    config: Annotated[RewardConfig, Knobs] = field(default_factory=RewardConfig)
    seed: int = SEED
    """Decides everything that is drawn by chance, and which prompts are held out."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


@dataclass(frozen=True, kw_only=True)
class CompareArguments:
    models: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="MODEL …", help_behavior_hint=""),
    ]
    """Names of the library; a base appears twice, as it is and helped by three examples.
    NAME@ADDRESS asks a model that others serve, for instance llama3.2@http://127.0.0.1:11434;
    its key is read from AMENABLE_GUEST_KEY."""
    config: Annotated[CompareConfig, Knobs] = field(default_factory=CompareConfig)
    seed: int = SEED
    """Decides everything that is drawn by chance."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


def finetune(arguments: FinetuneArguments, out: Out) -> dict[str, Any]:
    needs_training_packages()
    inputs = {"model": arguments.model, **named_data(arguments.data)}
    with existing(arguments.workspace) as workspace:
        run_id = _begin(workspace, "finetune", inputs, arguments)
        run = _see_through(workspace, out, run_id)
    return _new_version(run, out, arguments.workspace)


def align(arguments: AlignArguments, out: Out) -> dict[str, Any]:
    needs_training_packages()
    with existing(arguments.workspace) as workspace:
        inputs = {"model": arguments.model, **named_data(arguments.data)}
        run_id = _begin(workspace, "align", inputs, arguments)
        run = _see_through(workspace, out, run_id)
    return _new_version(run, out, arguments.workspace)


def reward(arguments: RewardArguments, out: Out) -> dict[str, Any]:
    needs_training_packages()
    from amenable.apps.cli.working import as_json
    from amenable.pipeline.reward import read_result

    inputs = {"model": arguments.model, **named_data(arguments.data)}
    with existing(arguments.workspace) as workspace:
        run_id = _begin(workspace, "reward", inputs, arguments)
        run = _see_through(workspace, out, run_id)
        say_agreement(out, run.outputs["model"], read_result(workspace.run_folder(run.id)))
    return as_json(run)


def compare(arguments: CompareArguments, out: Out) -> dict[str, Any]:
    needs_training_packages()
    if not arguments.models:
        raise UsageError("Missing: MODEL, at least one. See amenable compare --help.")
    from amenable.pipeline.report import read_result
    from amenable.reports.result import REPORT_FILE, to_json
    from amenable.store import runs

    with existing(arguments.workspace) as workspace:
        _all_known(workspace, arguments.models)
        with workspace.database.write() as session:
            run_id = runs.queue(
                session,
                stage="compare",
                inputs={"models": ",".join(arguments.models)},
                config=recorded(arguments.config),
                seed=arguments.seed,
            )
        run = _see_through(workspace, out, run_id)
        folder = workspace.run_folder(run.id)
        result = read_result(folder)
    say_result(out, result)
    out.say(f"The whole report, with pictures: {folder / REPORT_FILE}")
    return {"rows": rows_of(to_json(result))}


def rows_of(data: bytes) -> list[Any]:
    """The rows of a stored result as plain values."""
    import json

    return json.loads(data)["rows"]


def _all_known(workspace: "Workspace", names: tuple[str, ...]) -> None:
    """A mistyped name is refused before anything is queued."""
    from amenable.records.guest import Guest
    from amenable.store import library

    with workspace.database.read() as session:
        for name in names:
            if Guest.parse(name) is None:
                library.speaker(session, name)


def named_data(names: Sequence[str]) -> dict[str, str]:
    """Data sets as an input of a run; nothing where none is named."""
    return {"data": ",".join(names)} if names else {}


def _begin(
    workspace: "Workspace",
    stage: str,
    inputs: Mapping[str, str],
    arguments: FinetuneArguments | AlignArguments | RewardArguments,
) -> str:
    from amenable.pipeline.begin import TooFewJudgedError, begin

    try:
        with workspace.database.write() as session:
            return begin(session, stage, inputs, arguments.config, arguments.seed)
    except TooFewJudgedError as error:
        how = again("start", workspace.folder)
        raise TooFewJudgedError(error.judged, error.needed, how) from None


def _see_through(workspace: "Workspace", out: Out, run_id: str) -> "Run":
    from amenable.apps.cli.working import see_through

    out.say(f"Run {run_id}", style="quiet")
    return see_through(workspace, out, run_id)


def _new_version(run: "Run", out: Out, folder: Path) -> dict[str, Any]:
    from amenable.apps.cli.working import as_json

    name = run.outputs.get("model", "")
    out.say(f"● {name}", style="instruct")
    out.say(f"Talk to it: {again(f'chat {name}', folder)}")
    return as_json(run)


def _with_interval(found: "Measured", unit: str) -> str:
    from amenable.reports.numbers import value_text

    value, low, high = (value_text(each, unit) for each in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"


def say_result(out: Out, result: "Result") -> None:
    """The headline, and one line a metric with every model's value and interval."""
    out.say(result.headline)
    if result.simulated_people:
        out.say("Simulated people judged here, not real ones.", style="people")
    names = [model.name for model in result.models]
    rows: list[tuple[str, ...]] = []
    for row in result.rows:
        if "/" in row.metric:
            continue
        cells: list[str] = []
        for name in names:
            found = row.values.get(name)
            cells.append(_with_interval(found, row.unit) if found else "–")
        rows.append((row.title or row.metric.replace("_", " "), f"{row.n:,}", *cells))
    out.table(("Measured", " n", *(f" {name}" for name in names)), rows)
    for sentence in result.says:
        out.say(sentence)


def say_agreement(out: Out, name: str, result: "RewardResult") -> None:
    """How often it is right, beside what length alone gets, and how far its certainty is true."""
    held_out = result.held_out
    out.say(f"{MARKS['reward']} {name}")
    if result.is_simulated:
        out.say("Simulated people judged here, not real ones.", style="people")
    rows = [
        ("Right on what was held out", held_out.num, held_out.accuracy),
        (f"Whoever always takes the {held_out.length} reply", held_out.num, held_out.by_length),
        ("Right on what it learned from", result.num_learned, result.learned_accuracy),
    ]
    out.table(
        ("Measured", " n", " Share"),
        [(said, f"{num:,}", _with_interval(share, "share")) for said, num, share in rows],
    )
    out.table(
        ("Sure by", " n", " Right"),
        [
            (
                f"{100 * each.low:.0f} to {100 * each.high:.0f} %",
                f"{each.num:,}",
                f"{100 * each.right:.0f} %",
            )
            for each in held_out.bins
            if each.right is not None
        ],
    )
    apart = 100 * held_out.calibration_error
    out.say(f"How sure it was and how often it was right are {apart:.0f} points apart.")
    if held_out.disagreement is not None:
        others = 100 * held_out.disagreement
        out.say(f"Of its heads, {others:.0f} % would choose otherwise than their mean.")

"""amenable start: the whole loop, in front of a person or without one."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

from amenable.apps.cli.commands.models import accepts, is_there, place_of, unaccepted
from amenable.apps.cli.commands.plan import fitted_to, fitted_words, gpu_advice
from amenable.apps.cli.options import (
    DEFAULT_WORKSPACE,
    Flag,
    JsonFlag,
    NoDefault,
    WorkspaceFolder,
    again,
)
from amenable.apps.cli.out import Out
from amenable.apps.cli.places import needs_training_packages, opened
from amenable.models.catalogue import KNOWN_MODELS
from amenable.records.errors import WorkspaceError

if TYPE_CHECKING:
    from amenable.records.run import Run
    from amenable.store.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class StartArguments:
    base: Annotated[str | None, NoDefault] = None
    """The base model: a known name, a folder, a GGUF file or a hub id; gemma-3-270m if not said."""
    accept_licence: Flag = False
    """Say that you have read the base model's licence terms and accept them."""
    minutes: Annotated[float | None, NoDefault] = None
    """Fit the work into so many minutes, downloads apart; 0 goes back to the whole work."""
    headless: Flag = False
    """Do the whole loop without a person: scripted judges, marked as simulated everywhere."""
    host: str = "127.0.0.1"
    """Address of the page; the usual one is reached from this machine alone."""
    port: int = 8765
    """Port of the page."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


def run(arguments: StartArguments, out: Out) -> dict[str, Any]:
    from amenable.pipeline.supervise import alone

    with opened(arguments.workspace) as workspace:
        if arguments.headless:
            return _headless(workspace, arguments, out)
        with alone(workspace):
            return _with_people(workspace, arguments, out)


def _base(workspace: "Workspace", wanted: str | None) -> str:
    """What the loop begins with: what is asked for now, else what it began with, else the usual."""
    from amenable.pipeline.loop import DEFAULT_BASE, is_of

    begun = _prepare_run(workspace)
    began_with = DEFAULT_BASE if begun is None else begun.inputs.get("model", DEFAULT_BASE)
    if wanted is None:
        return began_with
    place = place_of(workspace, wanted)
    if begun is None:
        return place
    with workspace.database.read() as session:
        # By path or by name, it is the same base: then the loop goes on.
        return began_with if is_of(session, begun, place) else place


def _prepare_run(workspace: "Workspace") -> "Run | None":
    from amenable.pipeline.loop import LoopState

    with workspace.database.read() as session:
        return LoopState.of(session).step("prepare").run


def _with_people(workspace: "Workspace", arguments: StartArguments, out: Out) -> dict[str, Any]:
    from amenable.apps.cli.live import Watch
    from amenable.pipeline.supervise import check_port, supervise

    check_port(arguments.host, arguments.port)
    _back_up(workspace, out)
    base = _base(workspace, arguments.base)
    _fit(workspace, arguments, base, out)
    _begin(workspace, arguments, base, out)
    addresses: list[str] = []
    with _planned(workspace, base) as plan, Watch(workspace, out, says_next_step=True):

        def ready(address: str) -> None:
            addresses.append(address)
            plan.begin()

        supervise(workspace, arguments.host, arguments.port, say=out.say, on_ready=ready)
    out.say(f"Everything is kept. Go on with: {again('start', workspace.folder)}")
    return {"workspace": str(workspace.folder), "address": addresses[-1] if addresses else None}


def _back_up(workspace: "Workspace", out: Out) -> None:
    """A copy of the database; that there is none is said, and is no reason not to start."""
    try:
        workspace.back_up()
    except (WorkspaceError, OSError) as error:
        out.say(f"There is no new copy of the database: {error}")


def _begin(workspace: "Workspace", arguments: StartArguments, base: str, out: Out) -> None:
    """Queue the first run where the terms are accepted; the page asks where they are not."""
    from amenable.pipeline import loop
    from amenable.pipeline.config import PrepareConfig
    from amenable.pipeline.licences import accept_licence
    from amenable.pipeline.stage import resume

    begun = _prepare_run(workspace)
    is_same = begun is not None and begun.inputs.get("model") == base
    if is_same and begun is not None and begun.status not in ("failed", "stopped"):
        return
    known = KNOWN_MODELS.get(base)
    if known is not None:
        if not accepts(workspace, known, out, is_said=arguments.accept_licence):
            out.say("The page shows the terms again, and begins when they are accepted.")
            return
        with workspace.database.write() as session:
            accept_licence(session, known)
    if is_same and begun is not None:
        resume(workspace, begun.id)
        return
    with workspace.database.write() as session:
        loop.begin(session, PrepareConfig(accept_licence=known is not None), base=base)


def _fit(workspace: "Workspace", arguments: StartArguments, base: str, out: Out) -> None:
    """Let the loop's runs take what fits the time; a plan needs torch and some seconds."""
    if arguments.minutes is None:
        return
    from amenable.pipeline import fitting

    fitted = None
    if arguments.minutes != 0:
        needs_training_packages()
        from amenable.pipeline.headless import NUM_DRAWINGS
        from amenable.pipeline.plan import make_plan

        plan = make_plan(workspace, base)
        num_drawings = NUM_DRAWINGS if arguments.headless else 1
        fitted = fitted_to(workspace, plan, arguments.minutes, num_drawings=num_drawings)
        out.say(fitted_words(fitted))
        advice = gpu_advice(plan.machine.gpu, is_used=plan.machine.gpu_is_used)
        if advice:
            out.say(advice, style="base")
    with workspace.database.write() as session:
        fitting.keep(session, fitted)


class _Planning:
    """The plan of the base, made once in a process of its own, so that pages can say what costs."""

    def __init__(self, workspace: "Workspace", base: str) -> None:
        self._workspace = workspace
        self._base = base
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        folder = self._workspace.folder
        command = [sys.executable, "-m", "amenable.apps.cli.main", "plan", self._base]
        with (self._workspace.logs / "plan.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - ours, no shell
                [*command, "--workspace", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()


class _NoPlanning(_Planning):
    def begin(self) -> None:
        """It is there already, or cannot be made."""


@contextmanager
def _planned(workspace: "Workspace", base: str) -> Generator[_Planning]:
    from amenable.pipeline import costs

    with workspace.database.read() as session:
        is_planned = costs.is_planned(session, base)
    is_needed = not is_planned and find_spec("torch") is not None
    planning = _Planning(workspace, base) if is_needed else _NoPlanning(workspace, base)
    try:
        yield planning
    finally:
        planning.end()


def _headless(workspace: "Workspace", arguments: StartArguments, out: Out) -> dict[str, Any]:
    needs_training_packages()
    base = _base(workspace, arguments.base)
    _refuse_unaccepted(workspace, arguments, base)
    from amenable.apps.cli.live import Watch
    from amenable.apps.cli.working import Left, hearing_ctrl_c, stages
    from amenable.pipeline.config import PrepareConfig
    from amenable.pipeline.headless import UnfinishedError, run_headless

    go_on = Left(
        f"Stopped; what was done is kept. Go on with: {again('start --headless', workspace.folder)}"
    )
    with workspace.lock("worker"), hearing_ctrl_c(out) as leave:
        _back_up(workspace, out)
        _fit(workspace, arguments, base, out)
        try:
            with Watch(workspace, out):
                found = run_headless(
                    workspace,
                    stages(),
                    PrepareConfig(accept_licence=base in KNOWN_MODELS),
                    base=base,
                    on_run=lambda run: out.say(f"Run {run.id}", style="quiet"),
                    should_leave=leave.is_set,
                )
        except UnfinishedError:
            if leave.is_set():
                raise go_on from None
            raise
        except KeyboardInterrupt:
            raise go_on from None
    _say_end(workspace, out)
    return found


def _refuse_unaccepted(workspace: "Workspace", arguments: StartArguments, base: str) -> None:
    from amenable.pipeline.licences import is_accepted

    known = KNOWN_MODELS.get(base)
    if known is None or arguments.accept_licence or is_there(workspace, base):
        return
    with workspace.database.read() as session:
        if is_accepted(session, base):
            return
    raise unaccepted(known)


def _say_end(workspace: "Workspace", out: Out) -> None:
    from amenable.apps.cli.commands.training import say_result
    from amenable.pipeline.report import newest_comparison, read_result
    from amenable.reports.result import REPORT_FILE

    folder = workspace.run_folder(newest_comparison(workspace))
    say_result(out, read_result(folder))
    out.say(f"The whole report, with pictures: {folder / REPORT_FILE}")
    out.say(f"Judge for yourself: {again('start', workspace.folder)}")

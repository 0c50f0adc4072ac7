"""Shows from beside how far a run is: reads what it leaves in its folder while it works."""

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from amenable.apps.cli.out import Out
from amenable.apps.web import words
from amenable.pipeline.loop import LoopState
from amenable.pipeline.progress import Progress, read_film, read_metrics, read_progress
from amenable.records.errors import WorkspaceError
from amenable.records.run import Run
from amenable.store import runs
from amenable.store.workspace import Workspace

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

LOOK_SECONDS = 0.5
PLAIN_SECONDS = 30.0
PLAIN_SHARE = 0.1
LONGEST_REPLY = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What a person sees of a run at one moment."""

    title: str
    doing: str
    share: float
    numbers: str

    @property
    def line(self) -> str:
        return f"{self.title}: {self.doing}" + (self.numbers and f", {self.numbers}")


def glance(run: Run, progress: Progress | None, loss: float | None) -> Glance:
    """
    >>> from datetime import UTC, datetime
    >>> run = Run(id="finetune-1", stage="finetune", status="running", inputs={}, outputs={},
    ...     config={}, seed=1, created_at=datetime.now(UTC))
    >>> half = Progress(doing="Training", done=4, total=8, unit="steps", seconds_spent=1,
    ...     seconds_left=90)
    >>> glance(run, half, 1.5).line
    'Finetune: Training, 4 of 8 steps, loss 1.500, 1 min 30 s left'
    """
    title = words.STAGE_TITLES.get(run.stage, run.stage)
    if progress is None:
        waits = "waiting for its turn" if run.status == "queued" else "beginning"
        return Glance(title=title, doing=waits, share=0.0, numbers="")
    parts = [f"{progress.done:,} of {progress.total:,} {progress.unit}"] if progress.total else []
    if loss is not None:
        parts.append(f"loss {loss:.3f}")
    if progress.rate is not None:
        rate = f"{progress.rate:,.0f}" if progress.rate >= 100 else f"{progress.rate:.3g}"
        parts.append(f"{rate} {progress.rate_unit}".strip())
    if progress.seconds_left is not None and progress.share < 1:
        parts.append(f"{words.duration(progress.seconds_left)} left")
    return Glance(title=title, doing=progress.doing, share=progress.share, numbers=", ".join(parts))


class Display(Protocol):
    def show(self, now: Glance) -> None: ...
    def clear(self) -> None: ...


class PlainDisplay:
    """A line when something else is done, or a tenth of it, or after a while."""

    def __init__(self, out: Out) -> None:
        self._out = out
        self._last: Glance | None = None
        self._said_at = 0.0

    def show(self, now: Glance) -> None:
        last, is_late = self._last, time.monotonic() - self._said_at > PLAIN_SECONDS
        is_same = last is not None and (last.title, last.doing) == (now.title, now.doing)
        if last is not None and is_same:
            is_far = now.share - last.share >= PLAIN_SHARE or last.share < now.share == 1
            if not is_far and not (is_late and now != last):
                return
        self._out.say(now.line)
        self._last, self._said_at = now, time.monotonic()

    def clear(self) -> None:
        self._last = None


class BarDisplay:
    """One line at the foot of the terminal that moves."""

    def __init__(self, out: Out) -> None:
        self._out = out
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def show(self, now: Glance) -> None:
        if self._bar is None or self._task is None:
            self._bar = self._made()
            self._task = self._bar.add_task("", total=1.0, doing="", numbers="")
            self._bar.start()
        doing = f"{now.title}: {now.doing}"
        self._bar.update(self._task, completed=now.share, doing=doing, numbers=now.numbers)

    def clear(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None

    def _made(self) -> "Bar":
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bar

        return Bar(
            SpinnerColumn(style="instruct"),
            TextColumn("{task.fields[doing]}", markup=False),
            BarColumn(bar_width=24, complete_style="instruct", finished_style="instruct"),
            TextColumn("{task.fields[numbers]}", style="quiet", markup=False),
            console=self._out.console,
            transient=True,
        )


class Watch:
    """A thread that looks at one run, or at whichever run is at work, until it is left."""

    def __init__(
        self,
        workspace: Workspace,
        out: Out,
        *,
        run_id: str | None = None,
        says_next_step: bool = False,
    ) -> None:
        self._workspace = workspace
        self._out = out
        self._run_id = run_id
        self._says_next_step = says_next_step
        self._display: Display = BarDisplay(out) if out.console.is_terminal else PlainDisplay(out)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._run: Run | None = None
        self._frames = 0
        self._sentence = ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        if error is None:
            self._look_once()
        self._display.clear()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            self._look_once()

    def _look_once(self) -> None:
        try:
            self._look()
        except WorkspaceError:
            return  # busy for a moment: the next look comes soon

    def _look(self) -> None:
        with self._workspace.database.read() as session:
            if self._run is not None:
                self._run = runs.get(session, self._run.id)
            if self._run is None or self._run.status in runs.FINISHED:
                self._take_leave()
                self._run = self._next(session)
                self._frames = self._frames_before(self._run)
            nothing = self._run is None and self._says_next_step
            sentence = LoopState.of(session).next_step.sentence if nothing else ""
        if self._run is not None:
            self._show(self._run)
        elif sentence != self._sentence:
            self._sentence = sentence
            self._out.say(sentence)

    def _next(self, session: "runs.Session") -> Run | None:
        if self._run_id is not None:
            run = runs.get(session, self._run_id)
            return run if run.status in runs.OPEN else None
        return next(iter(runs.list_runs(session, statuses=("running",), limit=1)), None)

    def _frames_before(self, run: Run | None) -> int:
        """Frames of an earlier attempt were shown then."""
        if run is None or run.seconds is None:
            return 0
        return len(read_film(self._workspace.run_folder(run.id)))

    def _show(self, run: Run) -> None:
        folder = self._workspace.run_folder(run.id)
        self._show_film(read_film(folder))
        metrics = read_metrics(folder)
        loss = metrics[-1].get("loss") if metrics else None
        self._display.show(glance(run, read_progress(folder), loss))

    def _show_film(self, frames: list[dict[str, object]]) -> None:
        """How the model answers by now, so that waiting teaches."""
        for frame in frames[self._frames :]:
            replies = frame.get("replies")
            if not isinstance(replies, list) or not replies:
                continue
            first: dict[str, object] = replies[0]
            prompt = words.shorten(str(first.get("prompt", "")), LONGEST_REPLY)
            reply = words.shorten(str(first.get("reply", "")), LONGEST_REPLY) or "(nothing)"
            step = frame.get("step")
            mark, style = ("○", "base") if step == 0 else ("●", "instruct")
            when = "before training" if step == 0 else f"after {step} steps"
            self._out.say(f"  {mark} {when}, “{prompt}” → {reply}", style=style)
        self._frames = max(self._frames, len(frames))

    def _take_leave(self) -> None:
        run = self._run
        if run is None:
            return
        if run.status == "done":
            self._show_film(read_film(self._workspace.run_folder(run.id)))
        self._display.clear()
        self._frames = 0
        title = words.STAGE_TITLES.get(run.stage, run.stage)
        took = words.duration(run.seconds)
        if run.status == "done":
            pairs = run.outputs.get("pairs")
            what = f"{pairs} pairs" if pairs else run.outputs.get("model", "")
            self._out.say(f"{title}: done in {took}" + (what and f": {what}"))
        else:
            self._out.say(f"{title}: {run.status} after {took}", style="wrong")

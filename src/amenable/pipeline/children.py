"""Child processes: started again when they die, ended by their own numbers and no others."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from amenable.records.errors import CannotStartError

MOST_DEATHS = 5
DEATHS_WITHIN_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 8.0
END_SECONDS = 15.0
LONGEST_LOG_BYTES = 10_000_000
LONGEST_LINE = 300

log = logging.getLogger(__name__)

# A group of their own: Ctrl-C in the terminal reaches us alone, and we end them in good order.
# Windows knows no sessions, and Ctrl-Break is the one signal that another process hears there.
IS_WINDOWS = sys.platform == "win32"
OWN_GROUP: int = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
END_SIGNAL: int = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildPlan:
    """A process to keep alive: a module and its arguments."""

    role: str
    module: str
    arguments: Sequence[str] = ()


class Family:
    """All children; whoever holds it calls `look` every moment and `end` at last."""

    def __init__(
        self,
        plans: Sequence[ChildPlan],
        environment: Mapping[str, str],
        *,
        logs: Path,
        is_frozen: Callable[[ChildPlan, int], bool] | None = None,
    ) -> None:
        whole = {**os.environ, **environment}
        self._children = [Child(plan, whole, logs / f"{plan.role}.log") for plan in plans]
        self._is_frozen = is_frozen

    def look(self) -> None:
        """Start what is not there; CannotStartError if one dies too often."""
        for child in self._children:
            child.look()
            pid = child.pid
            if pid is not None and self._is_frozen and self._is_frozen(child.plan, pid):
                log.warning("%s neither works nor dies; it starts again.", child.plan.role)
                child.kill()

    def end(self) -> list[int]:
        """Ask all to end, wait, and end by force what is left; gives the numbers of those."""
        pids = [child.pid for child in self._children]
        for child in self._children:
            child.ask_to_end()
        end_at = time.monotonic() + END_SECONDS
        ended = [child.wait(max(0.0, end_at - time.monotonic())) for child in self._children]
        return [pid for pid, by_itself in zip(pids, ended, strict=True) if pid and not by_itself]

    def pids(self) -> dict[str, int | None]:
        return {child.plan.role: child.pid for child in self._children}


class Child:
    """One process, and how often it died."""

    def __init__(self, plan: ChildPlan, environment: Mapping[str, str], log_path: Path) -> None:
        self.plan = plan
        self._environment = environment
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths: deque[float] = deque(maxlen=MOST_DEATHS)
        self._start_at = 0.0

    @property
    def pid(self) -> int | None:
        is_running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process and is_running else None

    def look(self) -> None:
        if self._process is not None:
            code = self._process.poll()
            if code is None:
                return
            self._process = None
            self._died(code)
        if time.monotonic() >= self._start_at:
            self._start()

    def ask_to_end(self) -> None:
        if self._process is not None and self.pid is not None:
            self._process.send_signal(END_SIGNAL)

    def wait(self, seconds: float) -> bool:
        """Whether it ended by itself within so many seconds; else it is ended by force."""
        try:
            if self._process is not None:
                self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            log.warning("%s did not end when asked to; it is ended by force.", self.plan.role)
            self.kill()
            return False
        return True

    def kill(self) -> None:
        """By force, with the processes that it started itself."""
        if self._process is None or self.pid is None:
            return
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self._process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        self._process.kill()
        self._process.wait()

    def _start(self) -> None:
        self._set_long_log_aside()
        with self._log_path.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - modules of ours, no shell
                [sys.executable, "-m", self.plan.module, *self.plan.arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                creationflags=OWN_GROUP,
                start_new_session=not IS_WINDOWS,
            )

    def _died(self, code: int) -> None:
        now = time.monotonic()
        self._deaths.append(now)
        recent = [death for death in self._deaths if now - death < DEATHS_WITHIN_SECONDS]
        if len(recent) == MOST_DEATHS:
            raise CannotStartError(
                f"{self.plan.role} ended {MOST_DEATHS} times within a minute, at last with code "
                f"{code}. Its last words: {self._last_words()} (all of them: {self._log_path})"
            )
        self._start_at = now + min(
            LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (len(recent) - 1)
        )
        log.warning("%s ended with code %s; it starts again.", self.plan.role, code)

    def _last_words(self) -> str:
        lines = self._log_path.read_text("utf-8", errors="replace").strip().splitlines()
        return lines[-1].strip()[:LONGEST_LINE] if lines else "none."

    def _set_long_log_aside(self) -> None:
        path = self._log_path
        if path.exists() and path.stat().st_size > LONGEST_LOG_BYTES:
            path.replace(path.with_suffix(".old.log"))

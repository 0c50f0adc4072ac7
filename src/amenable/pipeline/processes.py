"""Processes by a name that is never given twice, on every system."""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

PARENT = "AMENABLE_PARENT"
"""Environment variable: who started this process."""
LOOK_SECONDS = 2.0
START_FIELD = 19
"""Of /proc/PID/stat behind the program's name: clock ticks from the system's start to its own."""

log = logging.getLogger(__name__)


def process_name(pid: int | None = None) -> str:
    """ "pid@start": numbers are reused, but not with the same start. Ours if no number is given."""
    process = psutil.Process(pid)
    return f"{process.pid}@{_start(process)}"


def _start(process: psutil.Process) -> str:
    """Told without the wall clock on Linux, where setting it would give the living another start.

    Elsewhere the system notes the moment at the start and keeps it, whatever the clock says later.
    """
    if not psutil.LINUX:
        return f"{process.create_time():.2f}"
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text(errors="replace")
    except OSError as error:
        raise psutil.NoSuchProcess(process.pid) from error
    return stat.rpartition(")")[2].split()[START_FIELD]  # the name itself may hold blanks


def is_alive(name: str) -> bool:
    """Whether the process of this name still works; a zombie does not.

    >>> is_alive(process_name()), is_alive("1@0.00"), is_alive("nonsense")
    (True, False, False)
    """
    process = _find(name)
    return process is not None and _works(process)


def _find(name: str) -> psutil.Process | None:
    number, _, start = name.partition("@")
    try:
        process = psutil.Process(int(number))
        return process if _start(process) == start else None
    except (ValueError, psutil.NoSuchProcess):
        return None


def _works(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def leave_with_parent(leave: Callable[[], None]) -> None:
    """Call `leave` when the process that started this one is gone, however that came about."""
    name = os.environ.get(PARENT)
    if name is None:
        return
    parent = _find(name)

    def watch() -> None:
        while parent is not None and _works(parent):
            time.sleep(LOOK_SECONDS)
        log.warning("The process that started this one is gone; leaving.")
        leave()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def be_polite() -> None:
    """Let the pages and a person who chats go first."""
    process = psutil.Process()
    if psutil.WINDOWS:
        process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    else:
        process.nice(max(process.nice(), 10))

"""Child processes are started again when they die, and ended by their own numbers."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from amenable.pipeline import children
from amenable.pipeline.children import ChildPlan, Family
from amenable.records.errors import CannotStartError

SLEEPER = """
import os, pathlib, sys, time
pathlib.Path(sys.argv[1]).write_text(os.environ["AMENABLE_SECRET"])
time.sleep(600)
"""
STUBBORN = """
import pathlib, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(600)
"""
FAILING = "import sys; sys.exit('no door to open')"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], str]:
    """Writes a module that a child can run by name."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(name: str, text: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FIRST_PAUSE_SECONDS", 0.0)


def family(plan: ChildPlan, tmp_path: Path) -> Family:
    return Family([plan], {"AMENABLE_SECRET": "hush"}, logs=tmp_path)


def until(is_so: Callable[[], object], of: Family) -> None:
    """Look after the family until something is so; the test's own time limit ends a failure."""
    while not is_so():
        of.look()
        time.sleep(0.01)


def pid_of(of: Family) -> int:
    (pid,) = of.pids().values()
    assert pid is not None
    return pid


def test_a_child_gets_its_arguments_and_the_secret(
    tmp_path: Path, module: Callable[[str, str], str]
):
    told = tmp_path / "told"
    plan = ChildPlan(role="web", module=module("sleeper", SLEEPER), arguments=[str(told)])
    whole = family(plan, tmp_path)
    until(lambda: told.exists() and told.read_text(), whole)
    pid = pid_of(whole)

    assert whole.end() == []  # none had to be forced
    assert told.read_text() == "hush"
    assert not psutil.pid_exists(pid)


def test_a_child_that_dies_is_started_again(tmp_path: Path, module: Callable[[str, str], str]):
    told = tmp_path / "told"
    plan = ChildPlan(role="web", module=module("sleeper", SLEEPER), arguments=[str(told)])
    whole = family(plan, tmp_path)
    until(lambda: whole.pids()["web"], whole)
    first = pid_of(whole)
    psutil.Process(first).kill()
    until(lambda: whole.pids()["web"] not in (None, first), whole)
    second = pid_of(whole)
    whole.end()

    assert not psutil.pid_exists(second)


def test_a_child_that_keeps_dying_is_given_up_with_its_last_words(
    tmp_path: Path, module: Callable[[str, str], str]
):
    plan = ChildPlan(role="serve", module=module("failing", FAILING))
    whole = family(plan, tmp_path)

    with pytest.raises(
        CannotStartError, match=r"serve ended 5 times within a minute.* no door to open"
    ) as caught:
        until(lambda: False, whole)

    assert "\n" not in str(caught.value)
    assert (tmp_path / "serve.log").read_text().count("no door to open") == 5


@pytest.mark.skipif(os.name == "nt", reason="nothing ignores Ctrl-Break that way there")
def test_a_child_that_will_not_end_is_ended_by_force_with_its_own_children(
    tmp_path: Path, module: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(children, "END_SECONDS", 0.2)
    told = tmp_path / "told"
    plan = ChildPlan(role="worker", module=module("stubborn", STUBBORN), arguments=[str(told)])
    whole = family(plan, tmp_path)
    until(lambda: told.exists() and told.read_text(), whole)
    grandchild = psutil.Process(int(told.read_text()))
    pid = pid_of(whole)

    assert whole.end() == [pid]

    grandchild.wait(10)
    assert not grandchild.is_running()


def test_a_frozen_child_is_started_again(tmp_path: Path, module: Callable[[str, str], str]):
    told = tmp_path / "told"
    plan = ChildPlan(role="worker", module=module("sleeper", SLEEPER), arguments=[str(told)])
    frozen: set[int] = set()
    whole = Family(
        [plan],
        {"AMENABLE_SECRET": "hush"},
        logs=tmp_path,
        is_frozen=lambda plan, pid: pid in frozen,
    )
    until(lambda: whole.pids()["worker"], whole)
    first = pid_of(whole)
    frozen.add(first)
    until(lambda: whole.pids()["worker"] not in (None, first), whole)
    whole.end()

    assert not psutil.pid_exists(first)


def test_a_long_log_is_set_aside(
    tmp_path: Path, module: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(children, "LONGEST_LOG_BYTES", 10)
    (tmp_path / "web.log").write_text("a long story from before")
    plan = ChildPlan(
        role="web", module=module("sleeper", SLEEPER), arguments=[str(tmp_path / "told")]
    )
    whole = family(plan, tmp_path)
    until(lambda: whole.pids()["web"], whole)
    whole.end()

    assert (tmp_path / "web.old.log").read_text() == "a long story from before"
    assert "before" not in (tmp_path / "web.log").read_text()

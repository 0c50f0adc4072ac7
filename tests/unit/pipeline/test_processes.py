"""Processes by a name that is never given twice."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from amenable.pipeline.processes import PARENT, is_alive, process_name

CHILD = """
import threading
from amenable.pipeline import processes
gone = threading.Event()
processes.LOOK_SECONDS = 0.02
processes.leave_with_parent(gone.set)
print("watching", flush=True)
gone.wait(20)
print("parent gone" if gone.is_set() else "still there", flush=True)
"""


def test_a_name_holds_for_one_process_only():
    name = process_name()

    assert is_alive(name)
    assert not is_alive(f"{os.getpid()}@1.00")  # the same number, another process


@pytest.mark.skipif(not psutil.LINUX, reason="elsewhere the system keeps the moment of a start")
def test_a_clock_that_is_set_renames_nobody(monkeypatch: pytest.MonkeyPatch):
    name, parent = process_name(), process_name(os.getppid())
    boot_time = psutil.boot_time() + 3600.0
    # As psutil sees it when the clock is set: on Linux starts are reckoned from the boot's moment.
    monkeypatch.setattr("psutil._pslinux.boot_time", lambda: boot_time)
    assert psutil.Process().create_time() > time.time()

    assert process_name() == name
    assert is_alive(name)
    assert is_alive(parent)


def test_a_process_that_ended_is_not_alive_also_before_anybody_noticed():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        name = process_name(child.pid)
        assert is_alive(name)
        child.kill()
        while is_alive(name):  # a moment, or the test's own time limit
            pass
        assert child.returncode is None  # nobody waited for it: it is a zombie on POSIX


def test_a_child_leaves_when_its_parent_is_gone():
    parent = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    environment = {**os.environ, PARENT: process_name(parent.pid)}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD], env=environment, stdout=subprocess.PIPE, text=True
    )
    with parent, child:
        assert child.stdout is not None
        assert child.stdout.readline() == "watching\n"
        parent.kill()
        parent.wait()

        assert child.stdout.readline() == "parent gone\n"

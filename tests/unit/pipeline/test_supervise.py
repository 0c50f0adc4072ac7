"""Runs a workspace's processes until it is told to end."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from sqlalchemy import update

from amenable.pipeline import supervise as supervise_module
from amenable.pipeline.children import ChildPlan
from amenable.pipeline.supervise import (
    ADDRESS,
    FROZEN_SECONDS,
    FrozenWorker,
    alone,
    answers,
    check_port,
    free_port,
    plans_for,
    supervise,
)
from amenable.records.errors import CannotStartError, WorkspaceError
from amenable.store import runs
from amenable.store.tables import RunRow
from amenable.store.workspace import Workspace, write_for_owner

WEB = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
START = """
import sys
from pathlib import Path
from amenable.pipeline import supervise
from amenable.pipeline.children import ChildPlan
from amenable.store.workspace import Workspace

port = int(sys.argv[2])
plan = ChildPlan(role="web", module="fake_web", arguments=[str(port)])
supervise.plans_for = lambda *_: [plan]
with Workspace.open(Path(sys.argv[1])) as workspace, supervise.alone(workspace):
    supervise.supervise(workspace, port=port, say=lambda line: print(line, flush=True))
print("ended well", flush=True)
"""


@pytest.mark.parametrize("told_by", ["SIGTERM", "SIGINT"])
@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_it_says_its_address_and_ends_its_processes_when_told(tmp_path: Path, told_by: str):
    (tmp_path / "fake_web.py").write_text(WEB)
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", START, str(tmp_path / "w"), str(port)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        text=True,
    )
    with process:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        line = next(line for line in lines if line.startswith("Amenable is ready"))
        children = psutil.Process(process.pid).children(recursive=True)
        address = tmp_path / "w" / ADDRESS
        where, rights = address.read_text().strip(), stat.S_IMODE(address.stat().st_mode)
        process.send_signal(getattr(signal, told_by))
        assert process.stdout.read().endswith("ended well\n")

    assert f"http://127.0.0.1:{port}/start?token=" in line
    assert (where, rights) == (f"http://127.0.0.1:{port}", 0o600)
    assert not address.exists()
    assert children
    assert not any(child.is_running() for child in children)
    assert process.returncode == 0


def test_a_port_in_use_is_said_before_anything_starts(workspace: Workspace):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(CannotStartError, match=rf"Port {port} is in use\. Try --port \d+"):
            supervise(workspace, port=port)

    assert list(workspace.logs.iterdir()) == []


@pytest.mark.parametrize(
    ("host", "port", "says"),
    [("127.0.0.1", 70_000, "up to 65535"), ("192.0.2.7", 8765, "no address of this machine")],
)
def test_an_address_that_cannot_be_is_said(host: str, port: int, says: str):
    with pytest.raises(CannotStartError, match=says):
        check_port(host, port)


def test_a_free_port_is_free():
    check_port("127.0.0.1", free_port())


def test_nobody_answers_at_a_closed_door():
    assert not answers("127.0.0.1", free_port())


def test_a_workspace_runs_once_and_says_where(workspace: Workspace):
    address = workspace.folder / ADDRESS
    address.write_text("http://127.0.0.1:1")  # of one that was killed
    with alone(workspace):
        with pytest.raises(WorkspaceError, match=r"^It runs already; for another browser end it"):
            alone(workspace).__enter__()
        write_for_owner(address, "http://127.0.0.1:8770")
        with pytest.raises(
            WorkspaceError, match=r"^It runs already at http://127\.0\.0\.1:8770; for another"
        ):
            alone(workspace).__enter__()

    assert not address.exists()
    with alone(workspace):
        pass


def test_the_processes_know_their_workspace_and_their_ports(tmp_path: Path):
    plans = {plan.role: plan for plan in plans_for(tmp_path, "192.0.2.7", 8765, 9000)}

    for plan in plans.values():
        assert str(tmp_path) in plan.arguments
    assert [*plans["web"].arguments][-4:] == ["--host", "192.0.2.7", "--port", "8765"]
    if "serve" in plans:  # with torch; models answer on loopback alone
        assert [*plans["serve"].arguments][-4:] == ["--host", "127.0.0.1", "--port", "9000"]
        assert "worker" in plans


def test_without_torch_there_are_only_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):

    def not_found(name: str) -> None:
        return None

    monkeypatch.setattr(supervise_module, "find_spec", not_found)

    assert [plan.role for plan in plans_for(tmp_path, "127.0.0.1", 8765, 9000)] == ["web"]


STUBBORN_WORKER = """
import signal, sys, time
from pathlib import Path
from amenable.pipeline.processes import process_name
from amenable.store import runs
from amenable.store.workspace import Workspace

signal.signal(signal.SIGTERM, signal.SIG_IGN)
with Workspace.open(Path(sys.argv[1])) as workspace:
    with workspace.database.write() as session:
        runs.claim_next(session, process_name())
    (workspace.folder / "at-work").touch()
    time.sleep(600)
"""
START_WITH_A_WORKER = """
import sys
from pathlib import Path
from amenable.pipeline import children, supervise
from amenable.pipeline.children import ChildPlan
from amenable.store.workspace import Workspace

children.END_SECONDS = 0.2
plan = ChildPlan(role="worker", module="stubborn_worker", arguments=[sys.argv[1]])
supervise.plans_for = lambda *_: [plan]
with Workspace.open(Path(sys.argv[1])) as workspace:
    supervise.supervise(workspace, port=int(sys.argv[2]))
"""


@pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")
def test_a_run_whose_worker_was_ended_by_force_goes_on_however_often(
    workspace: Workspace, tmp_path: Path
):
    (tmp_path / "stubborn_worker.py").write_text(STUBBORN_WORKER)
    with workspace.database.write() as session:
        run_id = runs.queue(session, stage="align", inputs={}, config={}, seed=0)
        session.execute(update(RunRow).values(attempt=runs.MOST_ATTEMPTS - 1))
    process = subprocess.Popen(
        [sys.executable, "-c", START_WITH_A_WORKER, str(workspace.folder), str(free_port())],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    with process:
        while not (workspace.folder / "at-work").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0

    with workspace.database.read() as session:
        row = session.get_one(RunRow, run_id)
    assert (row.status, row.attempt) == ("queued", runs.MOST_ATTEMPTS - 1)


WORKER = ChildPlan(role="worker", module="worker")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def beat(workspace: Workspace, moment: datetime) -> None:
    with workspace.database.write() as session:
        session.execute(update(RunRow).values(heartbeat_at=moment))


def test_a_worker_whose_run_stands_still_is_frozen(workspace: Workspace):
    clock = Clock()
    watch = FrozenWorker(workspace, clock=clock)
    start = datetime.now(UTC)
    with workspace.database.write() as session:
        run_id = runs.queue(session, stage="align", inputs={}, config={}, seed=0)
        runs.start(session, run_id, "41@1.00")

    def look_after(seconds: float) -> bool:
        clock.now += seconds
        return watch.is_frozen(WORKER, 41)

    assert not look_after(1)
    assert not look_after(FROZEN_SECONDS * 0.9)
    beat(workspace, start + timedelta(minutes=1))
    assert not look_after(FROZEN_SECONDS * 0.9)  # it moved
    assert not look_after(FROZEN_SECONDS * 0.9)
    assert look_after(FROZEN_SECONDS * 0.2)
    assert not look_after(1)  # and is not taken for frozen again at once


def test_an_idle_worker_and_other_processes_are_not_frozen(workspace: Workspace):
    clock = Clock()
    watch = FrozenWorker(workspace, clock=clock)
    for _ in range(5):
        clock.now += FROZEN_SECONDS
        assert not watch.is_frozen(WORKER, 41)
        assert not watch.is_frozen(ChildPlan(role="web", module="web"), 41)

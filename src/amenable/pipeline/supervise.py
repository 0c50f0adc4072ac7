"""Runs a workspace: web, serve and worker beside each other, until Ctrl-C or SIGTERM."""

import errno
import http.client
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from amenable.pipeline.children import ChildPlan, Family
from amenable.pipeline.processes import PARENT, is_alive, process_name
from amenable.records.errors import CannotStartError, WorkspaceError
from amenable.store import runs
from amenable.store.workspace import Workspace, write_for_owner

LOOPBACK = "127.0.0.1"
EVERYWHERE = {"0.0.0.0": LOOPBACK, "::": "::1"}  # noqa: S104 - to be reached there, not bound
ADDRESS = "address"
"""File of the workspace: where its pages are while they run."""
LOOK_SECONDS = 0.2
ANSWER_SECONDS = 1.0
FROZEN_SECONDS = 300.0
"""A run that says nothing for so long, while its process lives, has a frozen worker."""

log = logging.getLogger(__name__)


@contextmanager
def alone(workspace: Workspace) -> Generator[None]:
    """Be the one that runs this workspace; who comes second is told where it runs."""
    lock = workspace.lock("supervisor")
    address = workspace.folder / ADDRESS
    try:
        lock.acquire()
    except WorkspaceError:
        where = f" at {address.read_text('ascii').strip()}" if address.exists() else ""
        raise WorkspaceError(
            f"It runs already{where}; for another browser end it with Ctrl-C there and start it "
            "again."
        ) from None
    try:
        address.unlink(missing_ok=True)  # of one that was killed
        yield
    finally:
        address.unlink(missing_ok=True)
        lock.release()


def supervise(
    workspace: Workspace,
    host: str = LOOPBACK,
    port: int = 8765,
    *,
    say: Callable[[str], None] = print,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Run the workspace's processes, and say the one-time address when the pages answer.

    The caller is `alone`. `on_ready` gets the address too: to open a browser. CannotStartError if
    the port is in use or a process keeps dying.
    """
    with _told_to_end() as is_told:
        check_port(host, port)
        pages = f"http://{_in_url(host)}:{port}"
        with suppress(OSError):  # a full disk is no reason not to show the pages
            write_for_owner(workspace.folder / ADDRESS, pages)
        serve_port = free_port()
        token = secrets.token_urlsafe(24)
        environment = {
            PARENT: process_name(),
            "AMENABLE_SECRET": secrets.token_hex(32),
            "AMENABLE_LAUNCH_TOKEN": token,
            "AMENABLE_SERVE_URL": f"http://{LOOPBACK}:{serve_port}",
        }
        plans = plans_for(workspace.folder, host, port, serve_port)
        if len(plans) == 1:
            say("Without torch people judge and import data; models neither run nor train.")
        watch = FrozenWorker(workspace)
        family = Family(plans, environment, logs=workspace.logs, is_frozen=watch.is_frozen)
        is_ready = False
        try:
            while not is_told.wait(LOOK_SECONDS):
                family.look()
                if not is_ready and answers(EVERYWHERE.get(host, host), port):
                    is_ready = True
                    address = f"{pages}/start?token={token}"
                    say(f"Amenable is ready: {address}")
                    if on_ready is not None:
                        on_ready(address)
        finally:
            _put_back(workspace, family.end())


def _put_back(workspace: Workspace, pids: Sequence[int]) -> None:
    """What was at work when we ended its worker by force goes on with the next start.

    Else three impatient Ctrl-C in a long download would look like three deaths of its worker. A
    frozen worker counts as dead, however: its run would freeze the next one too, for ever.
    """
    if not pids:
        return
    try:
        with workspace.database.write() as session:
            for pid in pids:
                runs.forgive(session, pid)
            runs.requeue_orphans(session, is_alive)
    except WorkspaceError as error:
        log.warning("The run at work is not put back: %s", error)


def plans_for(folder: Path, host: str, port: int, serve_port: int) -> list[ChildPlan]:
    """The processes of a workspace; without torch only the pages."""
    workspace = ("--workspace", str(folder))
    web = ChildPlan(
        role="web",
        module="amenable.apps.web",
        arguments=(*workspace, "--host", host, "--port", str(port)),
    )
    if find_spec("torch") is None:
        return [web]
    serve = ChildPlan(
        role="serve",
        module="amenable.apps.serve",
        arguments=(*workspace, "--host", LOOPBACK, "--port", str(serve_port)),
    )
    worker = ChildPlan(
        role="worker", module="amenable.apps.cli.main", arguments=("worker", *workspace)
    )
    return [web, serve, worker]


class FrozenWorker:
    """Notices a worker that neither dies nor works: the heartbeat of its run stands still.

    Reckoned by our own steady clock since the last change seen, so that a laptop that slept, or a
    clock that was set, does not look like it.
    """

    def __init__(
        self, workspace: Workspace, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._workspace = workspace
        self._clock = clock
        self._beat: object = None
        self._since = clock()
        self._look_at = clock()

    def is_frozen(self, plan: ChildPlan, pid: int) -> bool:
        now = self._clock()
        if plan.role != "worker" or now < self._look_at:
            return False
        self._look_at = now + FROZEN_SECONDS / 10
        with self._workspace.database.read() as session:
            beat = runs.newest_heartbeat(session, pid)
        if beat is None or beat != self._beat:
            self._beat, self._since = beat, now
            return False
        if now - self._since <= FROZEN_SECONDS:
            return False
        self._beat = None
        return True


def check_port(host: str, port: int) -> None:
    """Refuse a port that somebody else listens on, before anything starts."""
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(kind, socket.SOCK_STREAM) as probe:
        if os.name != "nt":
            # A port that was left a moment ago is free; on Windows this would share a busy one.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise CannotStartError(_why_not(error, host, port)) from error


def _why_not(error: Exception, host: str, port: int) -> str:
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE or (os.name == "nt" and number == errno.EACCES):
        return f"Port {port} is in use. Try --port {free_port()}, or end what uses it."
    if number == errno.EACCES:
        return f"Port {port} is for administrators. Try --port {free_port()}."
    if isinstance(error, OverflowError):
        return f"There is no port {port}; ports go up to 65535."
    return f"{host} is no address of this machine. Try --host {LOOPBACK}."


def free_port() -> int:
    """A port of loopback that nobody listens on just now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def answers(host: str, port: int) -> bool:
    """Whether the pages answer; asked directly, whatever proxy the environment names."""
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def _told_to_end() -> Generator[threading.Event]:
    """An event that Ctrl-C, SIGTERM, Ctrl-Break or a closed terminal sets."""
    told = threading.Event()
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # only the main thread hears signals

    def tell(*_: object) -> None:
        told.set()

    before = {number: signal.signal(number, tell) for number in numbers}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host

"""A browser's side of the pages without a browser: a client that is let in, and a real server."""

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from starlette.testclient import TestClient
from tests.journeys.seed import Stage, engine, seed

from amenable.apps.web.app import Address, create_app
from amenable.generation.engine import Engine
from amenable.pipeline.supervise import free_port
from amenable.store.workspace import Workspace

TOKEN = "a-launch-token"
ORIGIN = "http://127.0.0.1:8765"
CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@contextmanager
def stranger(workspace: Workspace, speaks: Engine | None = None) -> Generator[TestClient]:
    """Somebody who has not come through the door."""
    app = create_app(workspace, speaks or engine(), TOKEN)
    with TestClient(app, base_url=ORIGIN, raise_server_exceptions=False) as client:
        yield client


@contextmanager
def guest(
    workspace: Workspace, stage: Stage = "new", speaks: Engine | None = None
) -> Generator[TestClient]:
    """Somebody who opened the one-time link, in a workspace where the loop stands at `stage`."""
    seed(workspace, stage)
    with stranger(workspace, speaks) as client:
        client.headers["origin"] = ORIGIN
        assert client.get("/start", params={"token": TOKEN}).status_code == 200
        yield client


@contextmanager
def served(
    workspace: Workspace, stage: Stage, speaks: Engine | None = None, *, port: int = 0
) -> Generator[str]:
    """A real server on loopback; gives its address."""
    seed(workspace, stage)
    port = port or free_port()
    app = create_app(workspace, speaks or engine(), TOKEN, address=Address(port=port))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not server.started and time.monotonic() < until:
        threading.Event().wait(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)

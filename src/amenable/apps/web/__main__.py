"""Start the pages: python -m amenable.apps.web --workspace W --host H --port P."""

import argparse
import os
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from amenable.apps.web.app import Address, create_app
from amenable.generation.remote import RemoteEngine
from amenable.pipeline.processes import leave_with_parent
from amenable.store.workspace import Workspace

SERVE_STARTS_WITHIN = 60.0
"""Seconds; the serving process loads more than the pages do, and starts again when it died."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="amenable web", description=__doc__)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8765)
    arguments = parser.parse_args()
    engine = RemoteEngine(
        os.environ["AMENABLE_SERVE_URL"],
        os.environ.get("AMENABLE_SECRET", ""),
        patience=SERVE_STARTS_WITHIN,
    )
    address = Address(host=arguments.host, port=arguments.port)
    token = os.environ.get("AMENABLE_LAUNCH_TOKEN", "")
    with Workspace.open(arguments.workspace) as workspace, workspace.lock("web"):
        serve(create_app(workspace, engine, token, address=address), address)


def serve(app: FastAPI, address: Address) -> None:
    """Answer until asked to end, or until the process that started this one is gone."""
    # Proxy headers stay untrusted: the guard decides by what the browser itself sent.
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=address.host,
            port=address.port,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=3,
        )
    )

    def leave() -> None:
        server.should_exit = True

    leave_with_parent(leave)
    server.run()


if __name__ == "__main__":
    main()

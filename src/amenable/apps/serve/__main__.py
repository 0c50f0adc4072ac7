"""The serving process: `python -m amenable.apps.serve --workspace W --port P`."""

import os
from dataclasses import dataclass
from pathlib import Path

import tyro
import uvicorn

from amenable.apps.serve.app import create_app
from amenable.pipeline.engines import EngineRoom
from amenable.pipeline.processes import leave_with_parent
from amenable.store.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class ServeArguments:
    workspace: Path
    port: int
    host: str = "127.0.0.1"


def main() -> None:
    arguments = tyro.cli(ServeArguments)
    workspace = Workspace.open(arguments.workspace)
    room = EngineRoom(workspace)
    app = create_app(room, os.environ.get("AMENABLE_SECRET"))
    config = uvicorn.Config(
        app,
        host=arguments.host,
        port=arguments.port,
        log_level="warning",
        timeout_graceful_shutdown=2,  # else the program's end waits for the longest reply
    )
    server = uvicorn.Server(config)

    def leave() -> None:
        server.should_exit = True

    leave_with_parent(leave)
    server.run()


if __name__ == "__main__":
    main()

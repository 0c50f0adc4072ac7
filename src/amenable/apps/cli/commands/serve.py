"""amenable serve: the OpenAI-compatible address alone, for other programs."""

from dataclasses import dataclass
from typing import Annotated

from amenable.apps.cli.options import DEFAULT_WORKSPACE, NoDefault, WorkspaceFolder
from amenable.apps.cli.out import Out
from amenable.apps.cli.places import existing, needs_training_packages
from amenable.apps.hosts import THIS_MACHINE
from amenable.records.errors import NotAllowedError


@dataclass(frozen=True, kw_only=True)
class ServeArguments:
    host: str = "127.0.0.1"
    """Address to listen on; any other than this one needs a key."""
    port: int = 8766
    """Port to listen on."""
    key: Annotated[str | None, NoDefault] = None
    """What callers must send as bearer token; none is asked for if not said."""
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE


def run(arguments: ServeArguments, out: Out) -> None:
    needs_training_packages()
    if arguments.host not in THIS_MACHINE and not arguments.key:
        raise NotAllowedError(
            f"At {arguments.host} others can reach the models; choose a key: --key SECRET"
        )
    from amenable.pipeline.supervise import check_port

    with existing(arguments.workspace) as workspace:
        check_port(arguments.host, arguments.port)
        import uvicorn

        from amenable.apps.serve.app import create_app
        from amenable.pipeline.engines import EngineRoom

        room = EngineRoom(workspace)
        app = create_app(room, arguments.key)
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        out.say(f"Serving at http://{host}:{arguments.port}/v1 until Ctrl-C. Models:")
        for model in room.listed():
            out.say(f"  {model.name}")
        uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning")

"""amenable env: what to send along with a bug report."""

import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from amenable.apps.cli.options import DEFAULT_WORKSPACE, JsonFlag, WorkspaceFolder
from amenable.apps.cli.out import Out
from amenable.apps.cli.places import existing, is_workspace
from amenable.apps.web import words

PACKAGES = (
    *("amenable", "torch", "transformers", "tokenizers", "safetensors", "peft", "gguf"),
    "bitsandbytes",
    *("numpy", "scipy", "sqlalchemy", "fastapi", "uvicorn", "pydantic", "tyro", "rich"),
)
GPU_DRIVERS = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, kw_only=True)
class EnvArguments:
    workspace: WorkspaceFolder = DEFAULT_WORKSPACE
    json: JsonFlag = False


def run(arguments: EnvArguments, out: Out) -> dict[str, Any]:
    found = {
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": platform.platform(),
        "packages": _versions(),
        "machine": _machine(),
        "workspace": _workspace(arguments.workspace),
    }
    for about, value in found.items():
        if isinstance(value, dict):
            out.say(f"{about}:")
            for name, each in value.items():
                out.say(f"  {name}: {each if each is not None else 'not installed'}")
        else:
            out.say(f"{about}: {value}")
    return found


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _machine() -> dict[str, Any]:
    import psutil

    return {
        "processor": platform.machine(),
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "memory_free_bytes": psutil.virtual_memory().available,
        "nvidia_gpus": len(list(GPU_DRIVERS.glob("*"))),
    }


def _workspace(folder: Path) -> dict[str, Any]:
    place = folder.expanduser().absolute()
    if not is_workspace(folder):
        return {"folder": str(place), "is_there": False}
    from amenable.store import library, runs

    with existing(folder) as workspace, workspace.database.read() as session:
        newest = runs.list_runs(session, limit=5)
        return {
            "folder": str(place),
            "is_there": True,
            "disk_free": words.size(shutil.disk_usage(place).free),
            "models": [row.name for row in library.models(session)],
            "datasets": [row.name for row in library.datasets(session)],
            "newest_runs": [f"{run.id} {run.status}" for run in newest],
        }

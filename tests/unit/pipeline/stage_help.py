"""Runs a stage on a tiny model as a worker would."""

from collections.abc import Mapping
from typing import Any

from amenable.pipeline.stage import execute
from amenable.pipeline.stages import STAGES
from amenable.records.run import Run
from amenable.store import runs
from amenable.store.workspace import Workspace

SMALL_FIT = {"tokens_per_step": 256, "tokens_per_batch": 256, "num_epochs": 1}
SMALL_FINETUNE: dict[str, Any] = {
    "limit": 6,
    "max_tokens": 100,
    "lora": {"rank": 2},
    "fit": SMALL_FIT,
}


def queue(
    workspace: Workspace,
    stage: str,
    model: str,
    config: Mapping[str, Any] | None = None,
    *,
    seed: int = 3,
) -> str:
    with workspace.database.write() as session:
        return runs.queue(
            session, stage=stage, inputs={"model": model}, config=dict(config or {}), seed=seed
        )


def run(
    workspace: Workspace, stage: str, model: str, config: Mapping[str, Any] | None = None
) -> Run:
    return execute(workspace, queue(workspace, stage, model, config), STAGES)


def done(
    workspace: Workspace, stage: str, model: str, config: Mapping[str, Any] | None = None
) -> str:
    ended = run(workspace, stage, model, config)
    assert ended.status == "done", ended.error
    return ended.outputs["model"]

"""Ways to learn from votes, compared: `python -m benchmarks.improve WORKSPACE WAY …`

WORKSPACE holds a finished loop; a copy of it is used. Each WAY is JSON with knobs of AlignConfig,
`{}` for the defaults. Version 1 learns from the votes in each way, and each outcome replies to the
development prompts: 200 of the kinds that the evaluation asks for, none of them in the product, so
that a default chosen here is not chosen by the prompts that prove it.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read when torch is imported

from amenable.evaluation.graders.constraints import is_met
from amenable.generation.engine import Request
from amenable.pipeline.engines import open_engine
from amenable.pipeline.loop import LoopState
from amenable.pipeline.stage import execute
from amenable.pipeline.stages import STAGES
from amenable.records.check import Check
from amenable.records.conversation import Conversation
from amenable.records.sample import SamplingSettings
from amenable.store import runs
from amenable.store.workspace import Workspace

PROMPTS = Path(__file__).parent / "prompts" / "development.jsonl"
GREEDY = SamplingSettings(max_new_tokens=128)


@dataclass(frozen=True)
class Score:
    """One entry a prompt."""

    ends: Sequence[bool]
    met: Sequence[bool]

    def row(self, before: "Score") -> str:
        pairs = list(zip(before.met, self.met, strict=True))
        gained = sum(after and not was for was, after in pairs)
        lost = sum(was and not after for was, after in pairs)
        shares = (sum(each) / len(each) for each in (self.ends, self.met))
        return " | ".join([*(f"{share:.1%}" for share in shares), f"+{gained}", f"-{lost}"])


def main() -> None:
    given, *ways = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(given, Path(folder) / "workspace"))
        for lock in copy.glob("*.lock"):
            lock.unlink()
        with Workspace.open(copy) as workspace:
            with workspace.database.read() as session:
                version_1 = LoopState.of(session).parent
            before = score(workspace, version_1)
            print("| way | ends by itself | requests met | gained | lost |")
            print("| --- | --- | --- | --- | --- |")
            print(f"| {version_1} | {before.row(before)} |", flush=True)
            for way in ways:
                name = improved(workspace, version_1, json.loads(way))
                print(f"| {way} | {score(workspace, name).row(before)} |", flush=True)


def improved(workspace: Workspace, parent: str, config: dict[str, Any]) -> str:
    with workspace.database.write() as session:
        inputs = {"model": parent, "comparisons": "improve"}
        run_id = runs.queue(session, stage="align", inputs=inputs, config=config, seed=7)
    ended = execute(workspace, run_id, STAGES)
    if ended.status != "done":
        raise SystemExit(ended.error)
    return ended.outputs["model"]


def score(workspace: Workspace, name: str) -> Score:
    rows = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    prompts = [Conversation.from_json(row["messages"]) for row in rows]
    checks = [[Check.from_json(check) for check in row["checks"]] for row in rows]
    requests = [Request(prompt=prompt, model=name, settings=GREEDY) for prompt in prompts]
    replies = open_engine(workspace, [name]).generate(requests)
    return Score(
        ends=[reply.stop_reason == "stop" for reply in replies],
        met=[
            all(is_met(check, reply.reply) for check in asked)
            for asked, reply in zip(checks, replies, strict=True)
        ],
    )


if __name__ == "__main__":
    main()

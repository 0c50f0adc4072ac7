"""The figures of the first loop, measured here: `make bench-start` prints them as a table.

`python -m benchmarks.start [WORKSPACE]` runs the headless loop in WORKSPACE (a new temporary one if
none is given; one that holds a finished loop is only read), then measures training and doors.
"""

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # read when torch is imported

import torch

from amenable.models.adapters import AdapterShape
from amenable.models.head import CHUNK_ROWS
from amenable.models.policy import Policy
from amenable.pipeline.config import FinetuneConfig, PrepareConfig
from amenable.pipeline.engines import family_form
from amenable.pipeline.finetune import LEARNER, training_rows
from amenable.pipeline.headless import run_headless
from amenable.pipeline.sources import training_conversations
from amenable.pipeline.stages import STAGES
from amenable.pipeline.supervise import free_port
from amenable.records.run import Run
from amenable.store import library, runs
from amenable.store.workspace import Workspace
from amenable.training.finetune import Budget, LikelihoodMethod
from amenable.training.optimizer import MasterWeights
from amenable.training.step import Update

BASE = "gemma-3-270m"
NUM_STEPS, PROBE_SECONDS = 16, 1.5


def main() -> None:
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "workspace"
    with Workspace.open(given) as workspace:
        began = time.monotonic()
        result = run_headless(
            workspace, STAGES, PrepareConfig(accept_licence=True), base=BASE, on_run=_say
        )
        seconds = time.monotonic() - began
        rows = [*_loop_rows(result, workspace, seconds), *_training_rows(workspace), *_doors()]
    for name, figure in rows:
        print(f"| {name} | {figure} |")


def _say(run: Run) -> None:
    print(f"… {run.stage}", file=sys.stderr)


def _loop_rows(
    result: dict[str, Any], workspace: Workspace, seconds: float
) -> list[tuple[str, str]]:
    rows = [
        ("headless loop, this call", f"{seconds / 60:.1f} min"),
        ("seconds by stage", json.dumps(result["seconds"])),
    ]
    for row in result["compare"]["rows"]:
        if "/" not in row["metric"]:
            values = ", ".join(
                f"{name} {each['value']:.3f} [{each['low']:.3f}, {each['high']:.3f}]"
                for name, each in row["values"].items()
            )
            rows.append((f"{row['metric']} ({row['unit']}, n {row['n']})", values))
            rows += [
                (
                    f"{row['metric']}: {each['model']} against {each['against']}",
                    f"{each['value']:+.3f} [{each['low']:+.3f}, {each['high']:+.3f}], "
                    f"p {each['p']:.4f}",
                )
                for each in row["differences"]
            ]
    with workspace.database.read() as session:
        done = runs.list_runs(session, statuses=("done",), limit=100)
    rows += [
        (f"peak memory of {run.stage}", f"{run.peak_memory_bytes / 1e9:.2f} GB")
        for run in done
        if run.peak_memory_bytes
    ]
    return rows


def _rate(work: Callable[[], object], flops: float) -> float:
    """FLOPs a second of one kind of product, as fast as this machine does it now."""
    work()
    began, rounds = time.perf_counter(), 0
    while time.perf_counter() - began < PROBE_SECONDS:
        work()
        rounds += 1
    return flops * rounds / (time.perf_counter() - began)


def _finetuning(workspace: Workspace) -> tuple[Policy, LikelihoodMethod]:
    """The base with a fresh adapter, and the starter set, as the stage sets them up."""
    config = FinetuneConfig()
    with workspace.database.read() as session:
        folder = workspace.folder / library.model(session, BASE).folder
        conversations = [each.conversation for each in training_conversations(session)]
    policy = Policy.load(folder)
    encoder = policy.encoder(family_form(folder))
    shape = AdapterShape(
        rank=config.lora.rank, alpha=config.lora.alpha, marker_ids=encoder.marker_ids
    )
    policy.adapters.add(LEARNER, shape)
    rows = training_rows(encoder, conversations, config, seed=7).rows
    budget = Budget(config.fit.tokens_per_batch, config.fit.tokens_per_step)
    return policy, LikelihoodMethod(policy, rows, budget, seed=7)


def _training_rows(workspace: Workspace) -> list[tuple[str, str]]:
    """The share of the arithmetic ceiling: 4 FLOPs per backbone weight and token, 4 per head
    weight and scored row, over the probed rate of each kind of product, probed before and after.
    """
    policy, method = _finetuning(workspace)
    update = Update(method, MasterWeights(policy.adapters.parameters(LEARNER), 0.0))
    head = policy.head_weight
    backbone = policy.num_parameters - head.numel()
    left = torch.randn(1024, 640).to(head.dtype)
    right = torch.randn(640, 2048).to(head.dtype)
    hidden = torch.randn(CHUNK_ROWS, head.shape[1]).to(head.dtype)

    def probe() -> tuple[float, float]:
        body = _rate(lambda: left @ right, 2 * 1024 * 640 * 2048)
        return body, _rate(lambda: hidden @ head.T, 2 * CHUNK_ROWS * head.numel())

    steps = method.steps(0)[: NUM_STEPS + 1]
    update.take(steps[0], 1e-5, 1.0)
    before = probe()
    began = time.perf_counter()
    for step in steps[1:]:
        update.take(step, 1e-5, 1.0)
    seconds = time.perf_counter() - began
    after = probe()
    body, top = ((one + other) / 2 for one, other in zip(before, after, strict=True))
    tokens = sum(method.num_tokens(each) for step in steps[1:] for each in step)
    targets = sum(method.counts(step) for step in steps[1:])
    ideal = 4 * backbone * tokens / body + 4 * head.numel() * targets / top
    one_rate = (4 * backbone * tokens + 4 * head.numel() * targets) / max(body, top)
    return [
        ("probed rates, body and head", f"{body / 1e9:.0f} and {top / 1e9:.0f} GFLOP/s"),
        ("finetuning", f"{tokens / seconds:.0f} tokens/s"),
        ("share of the arithmetic ceiling", f"{ideal / seconds:.1%}"),
        ("the same against the faster of both rates", f"{one_rate / seconds:.1%}"),
    ]


def _doors() -> list[tuple[str, str]]:
    times: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "amenable.apps.cli.main", "--help"],
            check=True,
            capture_output=True,
        )
        times.append(time.perf_counter() - began)
    ready = [_web_ready() for _ in range(3)]
    return [
        ("amenable --help", f"{statistics.median(times):.2f} s"),
        ("web ready", f"{statistics.median(ready):.2f} s"),
    ]


def _web_ready() -> float:
    port = free_port()
    environment = os.environ | {
        "AMENABLE_SECRET": "bench",
        "AMENABLE_SERVE_URL": f"http://127.0.0.1:{free_port()}",
        "AMENABLE_LAUNCH_TOKEN": "bench",
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "amenable.apps.web", "--workspace", folder]
        began = time.perf_counter()
        process = subprocess.Popen([*command, "--port", str(port)], env=environment)
        try:
            while not _answers(port):
                time.sleep(0.02)
            return time.perf_counter() - began
        finally:
            process.terminate()
            process.wait()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    main()

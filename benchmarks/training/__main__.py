"""`python -m benchmarks.training`: measures the cells that are missing, and writes the table."""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from safetensors.torch import save_file
from tokenizers import Tokenizer

from amenable.datasets.examples import TextExample
from amenable.datasets.read import ReadRow, read
from amenable.models.policy import Policy
from amenable.pipeline.stage import execute
from amenable.pipeline.stages import STAGES
from amenable.records.errors import NotFoundError
from amenable.starter import load as starter
from amenable.store import library, runs
from amenable.store.workspace import Workspace
from benchmarks.training import gate as gates
from benchmarks.training import results
from benchmarks.training.ceiling import Network, least_seconds
from benchmarks.training.gate import Gate, compared
from benchmarks.training.measure import WANTED_PAIRS, Measured, measure, say
from benchmarks.training.peers import PEERS, WORKERS, Peer, Wanted, python_of
from benchmarks.training.rows import COLUMNS, ROWS, Column, Row
from benchmarks.training.worker import Worker
from benchmarks.training.workload import Workload

ROOT = Path(__file__).parents[2]
CACHE = ROOT / "benchmarks" / ".cache"
LEARNING_RATE, MAX_GRAD_NORM = 1e-5, 1.0


@dataclass(frozen=True, kw_only=True)
class Arguments:
    row: tuple[str, ...] = ()
    """Only these; all otherwise."""
    peer: tuple[str, ...] = ()
    """Only these; all otherwise."""
    model: tuple[str, ...] = ()
    """Only these; all otherwise."""
    column: tuple[Column, ...] = COLUMNS
    """Documented settings, or the best that are known."""
    texts: Path | None = None
    """A file of texts to cut prompts and replies from; what ships with Amenable otherwise."""
    workspace: Path = CACHE / "workspace"
    """Where the models are, or will be brought to."""
    again: bool = False
    """Measure also what was measured before."""
    threads: int = 2
    """Of each side."""
    gate_only: bool = False
    """Only say whether the two sides do the same work; nothing is timed or kept."""


def main() -> None:
    arguments = tyro.cli(Arguments, prog="python -m benchmarks.training")
    known = {results.key(cell) for cell in results.read()}
    texts = _texts(arguments.texts)
    for wanted in _wanted(arguments):
        if wanted.key in known and not arguments.again:
            continue
        print("… " + " ".join(wanted.key), file=sys.stderr, flush=True)
        cell = _cell(wanted, arguments, texts)
        if not arguments.gate_only:
            results.keep(cell)
    results.write_table()


def _wanted(arguments: Arguments) -> list[Wanted]:
    return [
        Wanted(row, model, PEERS[peer], column)
        for column in arguments.column
        for row in ROWS.values()
        for model in row.models
        for peer in row.peers
        if peer in PEERS
        and (not arguments.row or row.name in arguments.row)
        and (not arguments.peer or peer in arguments.peer)
        and (not arguments.model or model in arguments.model)
    ]


def _texts(path: Path | None) -> list[str]:
    if path is None:
        return [each.text for each in starter.plain_texts()]
    rows = [each.example for each in read(path).rows if isinstance(each, ReadRow)]
    return [each.text for each in rows if isinstance(each, TextExample)]


def _cell(wanted: Wanted, arguments: Arguments, texts: Sequence[str]) -> results.Cell:
    python = python_of(wanted.peer, CACHE / "peers")
    model = _model(arguments.workspace, wanted.model)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        policy = Policy.load(model)
        workload = _workload(wanted.row, policy, texts)
        network = _network(policy)
        width = policy.head_weight.shape[1]
        del policy
        workload.write(folder / "workload.json")
        head = torch.randn(1, width, generator=torch.Generator().manual_seed(0))
        save_file({"score": head / (width + 1) ** 0.5}, folder / "head.safetensors")
        spec = {
            "method": wanted.row.method,
            "model": str(model),
            "workload": str(folder / "workload.json"),
            "head": str(folder / "head.safetensors"),
            "column": wanted.column,
            "learning_rate": LEARNING_RATE,
            "max_grad_norm": MAX_GRAD_NORM,
            "num_threads": arguments.threads,
        }
        sides = Sides(wanted.peer, python, spec, folder)
        gate = sides.gate()
        say(f"gate {gate.to_json()}")
        measured = Measured(gate=gate)
        if gate.passes and not arguments.gate_only:
            with sides.ours(is_exact=False) as ours, sides.theirs(is_exact=False) as theirs:
                measured = measure(ours, theirs, gate, WANTED_PAIRS[wanted.column])
    return results.cell_of(wanted, measured, _least(wanted.row, workload, network, measured))


@dataclass(frozen=True, slots=True)
class Sides:
    """Starts both sides on the same work."""

    peer: Peer
    python: Path
    spec: Mapping[str, Any]
    folder: Path

    def gate(self) -> Gate:
        """One after the other: both at once in 32 bits would need twice the memory."""
        with self.ours(is_exact=True) as worker:
            ours = worker.take(gates.NUM_STEPS)
        with self.theirs(is_exact=True) as worker:
            theirs = worker.take(gates.NUM_STEPS)
        return compared(
            (ours.losses, theirs.losses),
            (ours.digests, theirs.digests),
            (self._gradients("ours"), self._gradients("theirs")),
        )

    def ours(self, *, is_exact: bool) -> Worker:
        command = [sys.executable, "-m", "benchmarks.training.ours"]
        return self._worker("ours", command, [ROOT, ROOT / "src"], is_exact=is_exact)

    def theirs(self, *, is_exact: bool) -> Worker:
        command = [self.python, WORKERS / f"{self.peer.name}_side.py"]
        paths = [WORKERS, WORKERS / "stand_ins"] if self.peer.without else [WORKERS]
        return self._worker("theirs", command, paths, is_exact=is_exact)

    def _worker(
        self, name: str, command: Sequence[str | Path], paths: Sequence[Path], *, is_exact: bool
    ) -> Worker:
        known = self.folder / f"reference-{is_exact}.safetensors"
        own = {
            "is_exact": is_exact,
            "gradients": str(self._gradients(name)),
            "reference": str(known),
        }
        return Worker(command, paths, {**self.spec, **own}, self.folder / f"{name}.log")

    def _gradients(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"


def _least(row: Row, workload: Workload, network: Network, measured: Measured) -> list[float]:
    """What arithmetic allows for the mean step, at the rate that each pair was measured at."""
    steps = workload.steps()
    return [
        sum(least_seconds(row, step, network, pair.flops, measured.read_rate) for step in steps)
        / len(steps)
        for pair in measured.counted
    ]


def _workload(row: Row, policy: Policy, texts: Sequence[str]) -> Workload:
    tokenizer = Tokenizer.from_file(str(policy.folder / "tokenizer.json"))
    config = policy.network.config
    begins = config.model_type.startswith("gemma")
    return Workload.of(row, tokenizer, [config.bos_token_id] if begins else [], texts)


def _network(policy: Policy) -> Network:
    config = policy.network.config
    head = policy.head_weight.numel()
    width = getattr(config, "head_dim", config.hidden_size // config.num_attention_heads)
    return Network(
        backbone=policy.num_parameters - head,
        head=head,
        num_layers=config.num_hidden_layers,
        attention_width=config.num_attention_heads * width,
    )


def _model(folder: Path, name: str) -> Path:
    """The library's copy; brought and converted the first time."""
    with Workspace.open(folder) as workspace:
        try:
            with workspace.database.read() as session:
                return workspace.folder / library.model(session, name).folder
        except NotFoundError:
            print(f"… bringing {name}", file=sys.stderr)
        with workspace.database.write() as session:
            config = {"accept_licence": True}
            run = runs.queue(
                session, stage="prepare", inputs={"model": name}, config=config, seed=0
            )
        ended = execute(workspace, run, STAGES)
        if ended.status != "done":
            raise SystemExit(ended.error)
        with workspace.database.read() as session:
            return workspace.folder / library.model(session, name).folder


if __name__ == "__main__":
    main()

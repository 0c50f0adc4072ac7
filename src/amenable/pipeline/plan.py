"""Memory, download and minutes of each stage on this machine, from a probe of two seconds."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from sqlalchemy.orm import Session
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from amenable.models.catalogue import KNOWN_MODELS
from amenable.models.faults import first_line
from amenable.models.four_bit import BITS_A_WEIGHT
from amenable.models.head import CHUNK_ROWS
from amenable.models.policy import compute_device, compute_dtype, refuse_more_than_text
from amenable.pipeline import costs
from amenable.pipeline.config import AlignConfig, CompareConfig, FinetuneConfig, SampleConfig
from amenable.pipeline.costs import StageCost
from amenable.records.errors import ModelError
from amenable.store import library
from amenable.store.workspace import Workspace

PROBE_SECONDS = 2.0
# Shares of the probed rate that our loops reach, as measured on two cores (docs/experiments.md).
TRAINING_SHARE, DECODING_SHARE, READING_SHARE = 0.45, 0.12, 0.4
ACTIVATION_NUMBERS = 62  # per token, layer and unit of hidden width; measured on Gemma 3 270M
BYTES_PER_TRAINED = 16
"""In fp32: the weight, the sum of its gradients, and AdamW's two moments."""
PROGRAM_BYTES = 700_000_000
DTYPE_BYTES = {"bfloat16": 2, "float32": 4}
# What the starter set holds, in tokens of Gemma: the plan's measure of work.
DEMONSTRATION_TOKENS, DEMONSTRATION_TARGETS, REPLY_TOKENS, PROMPT_TOKENS = 75_000, 41_000, 60, 70
EVALUATION_PROMPTS, EVALUATION_REPLY_TOKENS = 152, 60  # a base as it is goes on to 128
MATRICES = 7
"""Of a layer: four of attention, three of its feed-forward part."""
NUM_VERSIONS = 2
"""That the loop sets side by side, in blind pairs and in its last comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What decides the cost of a model."""

    backbone: int
    head: int
    hidden: int
    layers: int
    vocabulary: int
    embedding: int = 0
    """Weights of an embedding of its own; none where it is the head as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    cores: int
    memory_bytes: int
    gflops: float
    dtype: str
    gpu: str | None
    """The name of an idle GPU that this torch cannot use, or of the one it uses."""
    gpu_is_used: bool
    gpu_memory_bytes: int | None = None
    """Of the GPU that is used; None where the processor computes."""

    @property
    def room_bytes(self) -> int:
        """Memory where it computes."""
        return self.gpu_memory_bytes or self.memory_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    model: str
    machine: Machine
    download_bytes: int
    finetune: StageCost
    sample: StageCost
    align: StageCost
    compare: StageCost
    qlora_bytes: int
    """Memory of finetuning with the layers in 4 bits, in place of what `finetune` needs."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def stages(self) -> dict[str, StageCost]:
        return {name: getattr(self, name) for name in ("finetune", "sample", "align", "compare")}

    @property
    def total_seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages.values())

    @property
    def fits(self) -> bool:
        most = max(stage.memory_bytes for stage in self.stages.values())
        return most < self.machine.room_bytes

    @property
    def qlora_fits(self) -> bool:
        return self.qlora_bytes < self.machine.room_bytes


def make_plan(workspace: Workspace, name: str) -> Plan:
    """Probe this machine and say what the loop with `name` costs here; kept for the pages."""
    machine = probe()
    shape, download = shape_of(workspace, name)
    plan = estimate(name, shape, machine, download)
    with workspace.database.write() as session:
        costs.keep(session, name, plan.stages)
    return plan


def shape_of(workspace: Workspace, name: str) -> tuple[Shape, int]:
    """A model's sizes and what is still to be downloaded; no weights are read."""
    with workspace.database.read() as session:
        folder = _library_folder(session, workspace, name)
    known = KNOWN_MODELS.get(name)
    if folder is None and known is not None:
        return Shape(**known.shape), known.download_bytes
    shape = _shape_from_config(folder or Path(name))
    is_here = folder is not None or Path(name).is_dir()
    return shape, 0 if is_here else 2 * (shape.backbone + shape.head + shape.embedding)


def _library_folder(session: Session, workspace: Workspace, name: str) -> Path | None:
    found = {row.name: row for row in library.models(session)}.get(name)
    if found is None:
        return None
    base = found if found.base is None else library.model(session, found.base)
    return workspace.folder / base.folder


def _shape_from_config(place: Path) -> Shape:
    try:
        config = AutoConfig.from_pretrained(str(place), trust_remote_code=False)
        refuse_more_than_text(config)
        with torch.device("meta"):
            return _shape(AutoModelForCausalLM.from_config(config))
    except ModelError:
        raise
    except Exception as error:  # hub, network and config readers each have their own classes
        raise ModelError(
            f"{place} is no model that can be planned for: {first_line(error)} "
            "Name a model of the library, a folder or a hub id."
        ) from error


def _shape(network: PreTrainedModel) -> Shape:
    embedding = cast("Any", network.get_input_embeddings()).weight
    head = cast("Any", network.get_output_embeddings()).weight
    apart = 0 if embedding is head else embedding.numel()
    total = sum(parameter.numel() for parameter in network.parameters())
    config = network.config
    return Shape(
        backbone=total - head.numel() - apart,
        head=head.numel(),
        hidden=int(config.hidden_size),
        layers=int(config.num_hidden_layers),
        vocabulary=int(config.vocab_size),
        embedding=apart,
    )


def probe() -> Machine:
    """The rate of matrix products as training makes them, in the precision that is used here."""
    device, dtype = compute_device(), compute_dtype()
    is_gpu = device.type == "cuda"
    return Machine(
        cores=psutil.cpu_count(logical=False) or 1,
        memory_bytes=psutil.virtual_memory().total,
        gflops=_gflops(device, dtype),
        dtype=str(dtype).removeprefix("torch."),
        gpu=find_gpu(),
        gpu_is_used=is_gpu,
        gpu_memory_bytes=torch.cuda.get_device_properties(device).total_memory if is_gpu else None,
    )


def _gflops(device: torch.device, dtype: torch.dtype) -> float:
    left = torch.randn(1024, 640).to(device, dtype)
    right = torch.randn(640, 2048).to(device, dtype)
    product = left @ right  # the first call also sets up the kernels
    _wait_for(device)
    began, rounds = time.perf_counter(), 0
    while time.perf_counter() - began < PROBE_SECONDS:
        torch.mm(left, right, out=product)
        rounds += 1
    _wait_for(device)
    return 2 * 1024 * 640 * 2048 * rounds / (time.perf_counter() - began) / 1e9


def _wait_for(device: torch.device) -> None:
    """A GPU is given products faster than it makes them."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def find_gpu() -> str | None:
    """The GPU of this machine, also when this build of torch cannot use it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0)
    for information in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("Model:"):
                return line.removeprefix("Model:").strip()
    return None


def estimate(name: str, shape: Shape, machine: Machine, download_bytes: int) -> Plan:
    """The arithmetic of each stage divided by the rate that our loops reach of the probed one.

    4 FLOPs per backbone weight and token, 4 per head weight and scored row in LoRA training;
    2 and 2 where a model only reads or writes.
    """
    flops = machine.gflops * 1e9
    finetune, sample, align = FinetuneConfig(), SampleConfig(), AlignConfig()
    learnt = finetune.fit.num_epochs * (
        4 * shape.backbone * DEMONSTRATION_TOKENS + 4 * shape.head * DEMONSTRATION_TARGETS
    )
    replies = 2 * sample.num_prompts
    reply_tokens = replies * REPLY_TOKENS
    drawn = 2 * (shape.backbone + shape.head) * reply_tokens
    pair_tokens = reply_tokens + replies * PROMPT_TOKENS
    aligned = (align.fit.num_epochs + 0.5) * (
        4 * shape.backbone * pair_tokens + 4 * shape.head * reply_tokens
    )
    compared_tokens = 4 * EVALUATION_PROMPTS * EVALUATION_REPLY_TOKENS
    read = 3 * CompareConfig().num_text_tokens * 2 * (shape.backbone + shape.head)
    compared = 2 * (shape.backbone + shape.head) * compared_tokens
    speaking = memory_needed(shape, machine.dtype, num_versions=NUM_VERSIONS)
    training = memory_needed(shape, machine.dtype, training_tokens=finetune.fit.tokens_per_batch)
    return Plan(
        model=name,
        machine=machine,
        download_bytes=download_bytes,
        finetune=StageCost(seconds=learnt / flops / TRAINING_SHARE, memory_bytes=training),
        sample=StageCost(seconds=drawn / flops / DECODING_SHARE, memory_bytes=speaking),
        align=StageCost(seconds=aligned / flops / TRAINING_SHARE, memory_bytes=training),
        compare=StageCost(
            seconds=compared / flops / DECODING_SHARE + read / flops / READING_SHARE,
            memory_bytes=speaking,
        ),
        qlora_bytes=qlora_needed(shape, machine.dtype, finetune.fit.tokens_per_batch),
    )


def memory_needed(
    shape: Shape, dtype: str, *, training_tokens: int = 0, num_versions: int = 0
) -> int:
    """Weights, one chunk of the head, what backward keeps, and the program itself.

    Each version that speaks beside its base has the layers once more, its adapter folded in;
    embedding and head are shared, and are one matrix in most small models.
    """
    width = DTYPE_BYTES[dtype]
    weights = width * (shape.head + shape.embedding + (1 + num_versions) * shape.backbone)
    head_chunk = CHUNK_ROWS * shape.vocabulary * 4
    kept = kept_bytes(training_tokens, shape.layers, shape.hidden, width)
    return PROGRAM_BYTES + weights + head_chunk + kept


def qlora_needed(shape: Shape, dtype: str, training_tokens: int) -> int:
    """The same for finetuning with the layers in 4 bits, of which one at a time is ever whole.

    Beside it the update, small but in fp32: every matrix of a layer has the hidden width on one
    side, so the other sides of all of them come to backbone / hidden.
    """
    width = DTYPE_BYTES[dtype]
    layers = int(shape.backbone * BITS_A_WEIGHT / 8) + width * shape.backbone // shape.layers
    vocabulary = width * (shape.head + shape.embedding) + CHUNK_ROWS * shape.vocabulary * 4
    sides = MATRICES * shape.layers * shape.hidden + shape.backbone // shape.hidden
    update = FinetuneConfig().lora.rank * sides * (width + BYTES_PER_TRAINED)
    kept = kept_bytes(training_tokens, shape.layers, shape.hidden, width, in_four_bits=True)
    return PROGRAM_BYTES + layers + vocabulary + update + kept


def kept_bytes(
    tokens: int, layers: int, hidden: int, width: int, *, in_four_bits: bool = False
) -> int:
    """What backward keeps: all work of all layers, or what came into each, and the work of one."""
    numbers = layers + ACTIVATION_NUMBERS if in_four_bits else layers * ACTIVATION_NUMBERS
    return tokens * hidden * numbers * width

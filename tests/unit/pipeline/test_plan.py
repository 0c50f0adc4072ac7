"""What a plan counts, by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.tiny import save_tiny

from amenable.pipeline import costs
from amenable.pipeline.plan import (
    Machine,
    Shape,
    estimate,
    make_plan,
    memory_needed,
    qlora_needed,
    shape_of,
)
from amenable.records.errors import ModelError
from amenable.store.workspace import Workspace

SHAPE = Shape(backbone=1000, head=5000, hidden=8, layers=2, vocabulary=10)
MACHINE = Machine(
    cores=2, memory_bytes=10**9, gflops=1.0, dtype="bfloat16", gpu=None, gpu_is_used=False
)


def test_each_version_that_speaks_has_the_layers_once_more_and_nothing_else():
    alone = memory_needed(SHAPE, "bfloat16")
    # Two bytes a weight, of the 1,000 in the layers; embedding and head are shared.
    assert memory_needed(SHAPE, "bfloat16", num_versions=2) - alone == 2 * 2 * 1000
    wider = replace(SHAPE, head=50_000)
    assert (
        memory_needed(wider, "bfloat16", num_versions=2) - memory_needed(wider, "bfloat16")
        == 2 * 2 * 1000
    )


def test_weights_of_32_bits_take_twice_the_memory():
    plans = [
        estimate("m", SHAPE, replace(MACHINE, dtype=name), 0) for name in ("bfloat16", "float32")
    ]
    narrow, wide = (plan.compare.memory_bytes for plan in plans)
    assert wide - narrow == 2 * (5000 + 3 * 1000)


def test_an_embedding_of_its_own_is_counted_once_and_costs_no_time():
    plain, wider = (estimate("m", replace(SHAPE, embedding=num), MACHINE, 0) for num in (0, 3000))
    for stage, cost in plain.stages.items():
        # Two bytes a weight.
        assert wider.stages[stage].memory_bytes - cost.memory_bytes == 2 * 3000
        assert wider.stages[stage].seconds == cost.seconds


@pytest.mark.parametrize("tied", [True, False])
def test_every_weight_of_a_model_is_in_its_shape(workspace: Workspace, tmp_path: Path, tied: bool):
    folder = save_tiny(tmp_path / "base", "chatml", tied=tied)
    total = json.loads((folder / "amenable.json").read_text("utf-8"))["num_parameters"]
    shape, download = shape_of(workspace, str(folder))
    assert shape.backbone + shape.head + shape.embedding == total
    assert shape.head == shape.vocabulary * shape.hidden
    assert shape.embedding == (0 if tied else shape.head)
    assert download == 0


def test_a_model_of_texts_and_pictures_is_refused_in_one_line(workspace: Workspace, tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "gemma3"}', "utf-8")
    with pytest.raises(ModelError, match="only text-only models are supported"):
        shape_of(workspace, str(tmp_path))


def test_what_is_no_language_model_is_refused_in_one_line(workspace: Workspace, tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}', "utf-8")
    with pytest.raises(ModelError, match="is no model that can be planned for"):
        shape_of(workspace, str(tmp_path))


def test_where_a_gpu_computes_its_memory_decides():
    plan = estimate("m", SHAPE, MACHINE, 0)  # 0.7 GB for the program, and little else
    assert plan.fits
    assert not replace(plan, machine=replace(MACHINE, gpu_memory_bytes=5 * 10**8)).fits
    assert replace(plan, machine=replace(MACHINE, memory_bytes=1, gpu_memory_bytes=10**9)).fits


def test_the_last_comparison_counts_both_versions():
    plan = estimate("m", SHAPE, MACHINE, 0)
    assert plan.compare.memory_bytes == memory_needed(SHAPE, "bfloat16", num_versions=2)
    assert plan.finetune.memory_bytes == memory_needed(SHAPE, "bfloat16", training_tokens=1024)


def test_a_plan_is_kept_beside_those_of_other_models(workspace: Workspace):
    with workspace.database.write() as session:
        costs.keep(session, "other", {})
    plan = make_plan(workspace, "smollm2-135m-instruct")
    with workspace.database.read() as session:
        assert costs.is_planned(session, "other")
        assert costs.is_planned(session, plan.model)


LLAMA_8B = {
    "model_type": "llama",
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}


def test_a_base_of_8_billion_weights_is_finetuned_within_24_gb(
    workspace: Workspace, tmp_path: Path
):
    """The sum of docs/how-to/qlora.md, from the sizes alone."""
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B), "utf-8")
    shape, _ = shape_of(workspace, str(tmp_path))
    a_layer = 2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14_336
    norms = (2 * 32 + 1) * 4096
    assert shape.backbone == 32 * a_layer + norms
    assert shape.head == shape.embedding == 128_256 * 4096
    parts = {
        "layers in 4 bits": 3.60e9,
        "one layer whole": 0.44e9,
        "embedding and head": 2.10e9,
        "a chunk of the head": 0.20e9,
        # Rank 16 on both sides of seven matrices: 42 million numbers, of 2 and 16 bytes.
        "update": 32 * 16 * (2 * 8192 + 2 * 5120 + 3 * 18_432) * 18,
        "inputs of the layers": 2 * 2048 * 4096 * 32,
        "work of one layer": 2 * 2048 * 4096 * 62,
        "program": 0.7e9,
    }
    needed = qlora_needed(shape, "bfloat16", 2048)
    assert needed == pytest.approx(sum(parts.values()), rel=0.005)
    assert needed < 24e9 < memory_needed(shape, "bfloat16", training_tokens=2048)


def test_what_fits_in_4_bits_alone_is_said():
    plan = estimate("m", SHAPE, MACHINE, 0)
    narrow = replace(MACHINE, memory_bytes=plan.qlora_bytes + 1)
    assert replace(plan, machine=narrow).qlora_fits
    assert not replace(plan, machine=replace(narrow, memory_bytes=plan.qlora_bytes)).qlora_fits
    # Whatever the number of layers, one of them works at a time.
    deep = Shape(backbone=10**6, head=5000, hidden=100, layers=50, vocabulary=10)
    more = qlora_needed(deep, "bfloat16", 1100) - qlora_needed(deep, "bfloat16", 100)
    assert more == 1000 * 100 * (50 + 62) * 2

"""What a plan counts, by hand."""

from dataclasses import replace

from amenable.pipeline import costs
from amenable.pipeline.plan import Machine, Shape, estimate, make_plan, memory_needed
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

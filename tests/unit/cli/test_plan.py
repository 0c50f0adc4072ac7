from dataclasses import replace

from amenable.apps.cli.commands.plan import fitted_words, gpu_advice, too_little
from amenable.pipeline.fitting import Amounts, Costs, fit
from amenable.pipeline.plan import Machine, Shape, estimate

WHOLE = Amounts(demonstrations=600, prompts=200, evaluation=150)
HOUR = Costs(finetune=1200, sample=600, align=600, compare=1200)


def test_knobs_are_told_in_words():
    assert fitted_words(fit(HOUR, 30, WHOLE)) == (
        "To fit (about 30 minutes): finetune: 300 demonstrations; sample: 100 prompts; compare: "
        "75 prompts, 10,000 tokens of plain text. "
        "amenable start --minutes does that."
    )


def test_what_cannot_fit_is_told_as_it_is():
    assert fitted_words(fit(HOUR, 1, WHOLE)).startswith(
        "The least useful work takes longer, about 10 minutes: finetune: 60 demonstrations"
    )


def test_an_idle_gpu_is_named_with_its_fix():
    assert gpu_advice("NVIDIA T4", is_used=True) is None
    assert gpu_advice(None, is_used=False) is None
    advice = gpu_advice("NVIDIA T4", is_used=False)
    assert advice is not None
    assert "NVIDIA T4" in advice
    assert "make env TORCH_INDEX=" in advice
    assert "\n" not in advice


def test_where_qlora_would_fit_it_is_named():
    shape = Shape(backbone=10**9, head=10**8, hidden=2048, layers=20, vocabulary=50_000)
    machine = Machine(
        cores=2, memory_bytes=10**9, gflops=1.0, dtype="bfloat16", gpu=None, gpu_is_used=False
    )
    plan = estimate("m", shape, machine, 0)
    assert not plan.fits
    assert too_little(plan) == "It does not fit: this machine has too little memory."
    wider = replace(plan, machine=replace(machine, memory_bytes=3 * 10**9))
    assert not wider.fits
    assert too_little(wider).endswith("with the layers in 4 bits: --method qlora (2.2 GB).")

from amenable.apps.cli.commands.plan import fitted_words, gpu_advice
from amenable.pipeline.fitting import Amounts, Costs, fit

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

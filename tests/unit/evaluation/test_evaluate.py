"""Asking for replies, drawing prompts, choosing examples."""

from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.evaluation.evaluate import ReplyMaker, draw_keys, scores
from amenable.evaluation.examples import choose
from amenable.evaluation.model_spec import ModelSpec, helped
from amenable.evaluation.task import EvaluationPrompt
from amenable.generation.engine import ScriptedEngine
from amenable.records.check import Check
from amenable.records.conversation import Conversation
from amenable.records.sample import ModelRef, Sample, SamplingSettings, StopReason


@dataclass(frozen=True)
class Asked:
    key: str
    family: str
    conversation: Conversation
    checks: tuple[Check, ...] = (Check("max_words", 2),)


def asked(key: str, family: str = "plan") -> Asked:
    return Asked(key, family, Conversation.of(("user", f"Prompt {key}")))


def said(reply: str, stop_reason: StopReason = "stop") -> Sample:
    return Sample(
        prompt=asked("a").conversation,
        reply=reply,
        model=ModelRef("m", "0" * 64),
        settings=SamplingSettings(),
        seed=0,
        stop_reason=stop_reason,
        num_tokens=1,
    )


def nothing_known(_model: ModelRef, _prompt: EvaluationPrompt, _settings: SamplingSettings) -> None:
    return None


BASE = ModelSpec(name="base", kind="base", form="plain")
PROMPTS = [asked("a"), asked("b"), asked("c")]


def test_replies_are_greedy_and_the_helped_base_gets_its_stop_texts():
    engine = ScriptedEngine({"base": ["Hi."], "base (helped)": ["Hello."]})
    kept: list[str] = []

    def keep(prompt: EvaluationPrompt, sample: Sample) -> None:
        kept.append(f"{prompt.key} {sample.model.sha256}")

    maker = ReplyMaker(engine, PROMPTS, 128, 7, nothing_known, keep)
    plain = maker.replies(BASE, ModelRef("base", "f" * 64))
    with_help = maker.replies(helped(BASE), ModelRef("base (helped)", "f" * 64))

    assert {sample.settings for sample in plain.values()} == {SamplingSettings(max_new_tokens=128)}
    assert "\nRequest:" in with_help["a"].settings.stop
    assert kept[:3] == [f"{key} {'f' * 64}" for key in "abc"]


def test_only_what_is_not_known_is_asked_for():
    engine = ScriptedEngine({"base": ["new"]})
    asked_for: list[str] = []

    def known(
        _model: ModelRef, prompt: EvaluationPrompt, _settings: SamplingSettings
    ) -> Sample | None:
        return said("old") if prompt.key == "b" else None

    def keep(prompt: EvaluationPrompt, _sample: Sample) -> None:
        asked_for.append(prompt.key)

    found = ReplyMaker(engine, PROMPTS, 8, 7, known, keep).replies(BASE, ModelRef("base", "f" * 64))

    assert {key: sample.reply for key, sample in found.items()} == {
        "a": "new",
        "b": "old",
        "c": "new",
    }
    assert asked_for == ["a", "c"]


def test_every_prompt_is_marked_on_its_ending_and_its_checks():
    replies = {prompt.key: said("ok") for prompt in PROMPTS}

    marks = scores(PROMPTS, replies)

    for metric in ("ends_by_itself", "constraints_met"):
        assert [mark.key for mark in marks if mark.metric == metric] == ["a", "b", "c"]


@settings(deadline=None)
@given(st.integers(1, 12), st.randoms(use_true_random=False))
def test_drawn_prompts_spread_over_families_whatever_their_order(wanted: int, lots: Random):
    prompts = [asked(f"{family}{at}", family) for family in "xyz" for at in range(4)]
    shuffled = lots.sample(prompts, len(prompts))

    drawn = draw_keys(prompts, wanted, seed=3)

    assert drawn == draw_keys(shuffled, wanted, seed=3)
    assert len(drawn) == wanted
    counts = [sum(key.startswith(family) for key in drawn) for family in "xyz"]
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("wanted", [0, 3, 99])
def test_none_or_more_than_there_are_means_all(wanted: int):
    assert draw_keys(PROMPTS, wanted, seed=3) == {"a", "b", "c"}


def test_examples_are_the_largest_gain_the_middle_one_and_the_largest_loss():
    subject = {"a": said("ok"), "b": said("ok"), "c": said("one two three")}
    against = {"a": said("one two three"), "b": said("ok"), "c": said("ok")}

    chosen = choose(PROMPTS, subject, against, seed=1)

    assert [(each.rule, each.prompt.key) for each in chosen] == [
        ("largest gain", "a"),
        ("median", "b"),
        ("largest loss", "c"),
    ]


def test_a_smallest_gain_is_not_called_a_loss_and_no_example_stands_twice():
    subject = {"a": said("ok"), "b": said("ok")}
    against = {"a": said("one two three"), "b": said("ok", "length")}

    chosen = choose(PROMPTS[:2], subject, against, seed=1)

    assert [(each.rule, each.prompt.key) for each in chosen] == [
        ("largest gain", "a"),
        ("smallest gain", "b"),
    ]
    assert choose([], {}, {}, seed=1) == []

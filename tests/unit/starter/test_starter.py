"""The starter data is what was promised: enough, varied, checked, and with no prompt told twice."""

import json
from collections import Counter
from collections.abc import Sequence
from importlib.resources import files
from itertools import combinations
from pathlib import Path

import pytest

from amenable.datasets.overlap import Overlap, Texts, duplicates, repeated_ngrams, shared_ngrams
from amenable.evaluation.graders.constraints import (
    EVALUATION_KINDS,
    FEEDBACK_KINDS,
    all_met,
    is_met,
    words,
)
from amenable.records.conversation import Conversation
from amenable.starter.load import (
    StarterPrompt,
    demonstrations,
    evaluation_prompts,
    feedback_prompts,
    plain_texts,
)

FAMILIES = {
    *("open_question", "closed_question", "summarise", "rewrite", "classify", "extract"),
    *("translate", "brainstorm", "plan", "write", "explain", "correct", "compare"),
    *("arithmetic", "code", "role", "unknown", "decline"),
}
SETS = ("demonstrations", "feedback", "evaluation", "development")
DEVELOPMENT = Path(__file__).parents[3] / "benchmarks" / "prompts" / "development.jsonl"


def asked(conversation: Conversation) -> list[str]:
    """What the system prompt and the person say."""
    return [message.text for message in conversation.messages if message.role != "assistant"]


def texts_of(name: str) -> Texts:
    if name == "demonstrations":
        return {each.key: asked(each.conversation) for each in demonstrations()}
    if name == "development":
        rows = [json.loads(line) for line in DEVELOPMENT.read_text(encoding="utf-8").splitlines()]
        return {row["id"]: asked(Conversation.from_json(row["messages"])) for row in rows}
    prompts = feedback_prompts() if name == "feedback" else evaluation_prompts()
    return {each.key: asked(each.conversation) for each in prompts}


def told(overlaps: Sequence[Overlap]) -> list[str]:
    return [f"{each.left} and {each.right}: {' '.join(each.words)}" for each in overlaps]


def test_there_are_enough_demonstrations_of_every_family():
    families = Counter(each.family for each in demonstrations())

    assert families.total() >= 600
    assert set(families) == FAMILIES
    assert min(families.values()) >= 15


def test_eighty_demonstrations_have_several_turns():
    assert sum(len(asked_turns(each.conversation)) > 1 for each in demonstrations()) >= 80


def asked_turns(conversation: Conversation) -> list[str]:
    return [message.text for message in conversation.messages if message.role == "user"]


def test_two_hundred_demonstrations_can_be_checked_and_all_replies_pass():
    checked = [each for each in demonstrations() if each.checks]
    failing = [
        each.key for each in checked if not all_met(each.checks, each.conversation.split_reply()[1])
    ]

    assert len(checked) >= 200
    assert failing == []


def test_replies_are_mostly_short_and_end_cleanly():
    replies = {each.key: each.conversation.split_reply()[1] for each in demonstrations()}

    assert sum(len(words(reply)) < 150 for reply in replies.values()) >= 0.9 * len(replies)
    assert [key for key, reply in replies.items() if reply != reply.strip()] == []
    assert [key for key, reply in replies.items() if reply.endswith((";", ":", "..."))] == []


def test_arithmetic_ends_with_its_answer():
    lasts = [
        each.conversation.split_reply()[1].splitlines()[-1]
        for each in demonstrations()
        if each.family == "arithmetic"
    ]

    assert sum(last.startswith("Answer: ") for last in lasts) >= 0.9 * len(lasts)


def test_roles_come_from_a_system_prompt():
    without = [
        each.key
        for each in demonstrations()
        if each.family == "role" and each.conversation.system is None
    ]

    assert without == []


def test_there_are_enough_prompts_for_feedback_and_for_evaluation():
    assert len(feedback_prompts()) >= 200
    assert len(evaluation_prompts()) >= 150
    assert all(prompt.checks for prompt in evaluation_prompts())
    assert {prompt.family for prompt in (*feedback_prompts(), *evaluation_prompts())} <= FAMILIES


def test_feedback_and_evaluation_ask_for_different_kinds_of_things():
    feedback = {check.kind for prompt in feedback_prompts() for check in prompt.checks}
    evaluation = {check.kind for prompt in evaluation_prompts() for check in prompt.checks}

    assert feedback <= set(FEEDBACK_KINDS)
    assert evaluation <= set(EVALUATION_KINDS)
    assert not feedback & evaluation
    assert len(feedback) >= 8
    assert len(evaluation) >= 8


@pytest.mark.parametrize("prompts", [feedback_prompts, evaluation_prompts])
def test_every_prompt_asks_for_something_that_can_be_checked(
    prompts: type[Sequence[StarterPrompt]],
):
    assert [prompt.key for prompt in prompts() if not prompt.checks] == []


@pytest.mark.parametrize("prompts", [feedback_prompts, evaluation_prompts])
def test_every_check_is_understood_by_its_grader(prompts: type[Sequence[StarterPrompt]]):
    for prompt in prompts():
        for check in prompt.checks:
            is_met(check, "Some reply or other.")  # raises if it is not understood


def test_prompts_wait_for_a_reply():
    for prompt in (*feedback_prompts(), *evaluation_prompts()):
        assert prompt.conversation.messages[-1].role == "user", prompt.key


def test_keys_are_unique():
    keys = Counter(key for name in SETS for key in texts_of(name))

    assert [key for key, count in keys.items() if count > 1 or not key] == []


@pytest.mark.parametrize(("left", "right"), list(combinations(SETS, 2)))
def test_no_eight_words_are_asked_in_two_sets(left: str, right: str):
    assert told(shared_ngrams(texts_of(left), texts_of(right))) == []


@pytest.mark.parametrize("name", SETS)
def test_no_eight_words_are_asked_twice_in_one_set(name: str):
    assert told(repeated_ngrams(texts_of(name))) == []
    assert duplicates(texts_of(name)) == []


def test_there_is_enough_plain_text_and_none_of_it_is_trained_on():
    demonstrated = {
        each.key: [message.text for message in each.conversation.messages]
        for each in demonstrations()
    }
    texts = {f"text {n}": [each.text] for n, each in enumerate(plain_texts(), 1)}

    # 20,000 tokens: English prose has at least 1.4 of them a word with punctuation, 14,000 words
    assert sum(len(words(each.text)) for each in plain_texts()) >= 14_000
    assert duplicates(texts) == []
    assert told(shared_ngrams(texts, demonstrated)) == []


def test_no_text_is_empty_or_padded():
    for name in SETS:
        for key, parts in texts_of(name).items():
            assert all(part and part == part.strip() for part in parts), key


def test_the_data_say_their_licence():
    licence = (files("amenable.starter") / "LICENSE").read_text(encoding="utf-8")

    assert "CC0" in licence

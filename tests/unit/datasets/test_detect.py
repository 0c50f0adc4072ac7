"""The kind of a row is told by its keys."""

import pytest

from amenable.datasets.detect import KINDS, WANTED_KEYS, detect, kind_named, kind_of
from amenable.datasets.fields import Fields
from amenable.records.errors import NotFoundError


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        ("messages", "messages"),
        ("messages tools", "messages"),
        ("conversations", "sharegpt"),
        ("instruction output", "alpaca"),
        ("instruction input output system history", "alpaca"),
        ("prompt completion", "prompt-completion"),
        ("prompt", "prompt-only"),
        ("prompt chosen rejected", "preference"),
        ("chosen rejected", "preference"),
        ("prompt replies ranks", "ranking"),
        ("conversations chosen rejected", "preference"),
        ("instruction chosen rejected", "preference"),
        ("messages prompt chosen rejected", "preference"),
        ("instruction chosen_response rejected_response", "preference"),
        ("messages kto_tag", "kto"),
        ("instruction output kto_tag", "kto"),
        ("text", "text"),
        ("text label", "text"),
        ("question answer", None),
        ("instruction", None),
        ("", None),
    ],
)
def test_a_kind_is_told_by_the_keys(keys: str, kind: str | None):
    found = kind_of(Fields(dict.fromkeys(keys.split(), "x")))

    assert (found and found.name) == kind


@pytest.mark.parametrize(
    ("label", "kind"),
    [(True, "kto"), (False, "kto"), (None, "kto"), ("safe", "prompt-completion"), (4, None)],
)
def test_only_yes_or_no_makes_a_rating(label: object, kind: str | None):
    found = kind_of(Fields({"prompt": "a", "completion": "b", "label": label}))

    assert found is not None
    assert found.name == (kind or "prompt-completion")


def test_messages_that_end_with_the_user_are_a_prompt():
    found = kind_of(Fields({"messages": [{"role": "user", "content": "Hi"}]}))

    assert found is KINDS["prompt-only"]


def test_most_rows_decide_and_none_gives_nothing():
    text, prompt, other = Fields({"text": "a"}), Fields({"prompt": "a"}), Fields({"a": "a"})

    assert detect([other, prompt, text, text]) is KINDS["text"]
    assert detect([prompt, text]) is KINDS["prompt-only"]
    assert detect([other]) is None
    assert detect([]) is None


@pytest.mark.parametrize("name", ["KTO", "prompt_only", " Prompt ", "openai"])
def test_a_kind_has_forgiving_names(name: str):
    assert kind_named(name).name in KINDS


def test_an_unknown_kind_is_told_with_the_known_ones():
    with pytest.raises(NotFoundError, match="prompt-completion"):
        kind_named("pretraining")


def test_every_key_a_kind_names_is_unpacked_from_parquet():
    words = {word.strip("(),") for kind in KINDS.values() for word in kind.keys.split()}

    assert {word for word in words if word in WANTED_KEYS} >= {
        *("prompt", "completion", "label", "kto_tag", "chosen", "rejected", "messages"),
        *("conversations", "instruction", "output", "input", "system", "history", "text"),
    }

"""A bad row is refused by its key, with what was found and what was expected."""

import pytest

from amenable.datasets.detect import kind_named
from amenable.datasets.examples import RatedExample
from amenable.datasets.fields import Fields
from amenable.datasets.strict import RowError
from amenable.records.conversation import Conversation

Row = dict[str, object]


def said(*texts: str) -> list[Row]:
    """Turns of user and assistant."""
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


REFUSED: dict[str, tuple[str, Row, str, str]] = {
    "no output": ("alpaca", {"instruction": "Hi", "outptu": "Hello"}, "output", "is missing"),
    "empty output": ("alpaca", {"instruction": "Hi", "output": " \n"}, "output", "is empty"),
    "output is a number": ("alpaca", {"instruction": "Hi", "output": 5}, "output", "is a number"),
    "history of singles": (
        "alpaca",
        {"instruction": "Hi", "output": "Hello", "history": [["a"]]},
        "history",
        "item 1 is not a pair",
    ),
    "no messages": ("messages", {"massages": []}, "messages", "is missing"),
    "null messages": ("messages", {"messages": None}, "messages", "is null"),
    "empty messages": ("messages", {"messages": []}, "messages", "empty list"),
    "messages as text": ("messages", {"messages": "Hi"}, "messages", "is text"),
    "turn as text": ("messages", {"messages": ["Hi"]}, "messages", "turn 1 is text"),
    "turn without role": ("messages", {"messages": [{"content": "Hi"}]}, "messages", "no 'role'"),
    "unknown role": (
        "messages",
        {"messages": [{"role": "tool", "content": "7"}]},
        "messages",
        "turn 1 has the role 'tool'",
    ),
    "role is a list": ("messages", {"messages": [{"role": ["user"]}]}, "messages", "the role"),
    "content is null": (
        "messages",
        {"messages": [*said("Hi"), {"role": "assistant", "content": None}]},
        "messages",
        "turn 2, 'content', is null",
    ),
    "content is a picture": (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages",
        "not text",
    ),
    "twice the user": (
        "messages",
        {"messages": [*said("Hi"), *said("Hi")]},
        "messages",
        "turn 2 is by user",
    ),
    "ends with the user": ("messages", {"messages": said("Hi")}, "messages", "last turn"),
    "empty turn": ("messages", {"messages": said("Hi", "")}, "messages", "turn 2 is empty"),
    "nul in a turn": ("messages", {"messages": said("Hi", "a\0")}, "messages", "NUL"),
    "lone surrogate": ("text", {"text": "\ud83d"}, "text", "half of a character"),
    "system twice": (
        "sharegpt",
        {
            "system": "a",
            "conversations": [
                {"from": "system", "value": "b"},
                {"from": "human", "value": "c"},
                {"from": "gpt", "value": "d"},
            ],
        },
        "system",
        "twice",
    ),
    "tool in sharegpt": (
        "sharegpt",
        {"conversations": [{"from": "function_call", "value": "f()"}]},
        "conversations",
        "function_call",
    ),
    "empty prompt": ("prompt-only", {"prompt": ""}, "prompt", "is empty"),
    "prompt ends with a reply": ("prompt-only", {"prompt": said("a", "b")}, "prompt", "last turn"),
    "completion of two turns": (
        "prompt-completion",
        {"prompt": "Hi", "completion": said("a", "b")},
        "completion",
        "other turns",
    ),
    "no rejected": ("preference", {"prompt": "Hi", "chosen": "a"}, "rejected", "is missing"),
    "never an invented prompt": (
        "preference",
        {"chosen": "Blue.", "rejected": "Black."},
        "prompt",
        "share no opening",
    ),
    "null prompt": (
        "preference",
        {"prompt": None, "chosen": "Blue.", "rejected": "Black."},
        "prompt",
        "is null",
    ),
    "the same twice": (
        "preference",
        {"prompt": "Hi", "chosen": "a", "rejected": "a"},
        "rejected",
        "same text",
    ),
    "text beside turns": (
        "preference",
        {"prompt": "Hi", "chosen": "a", "rejected": said("Hi", "b")},
        "rejected",
        "another form",
    ),
    "other opening": (
        "preference",
        {"chosen": said("Hi", "a"), "rejected": said("Ho", "b")},
        "rejected",
        "before the last turn",
    ),
    "other prompt": (
        "preference",
        {"prompt": "Hi", "chosen": said("Ho", "a"), "rejected": said("Ho", "b")},
        "chosen",
        "other turns than the prompt",
    ),
    "margin in words": (
        "preference",
        {"prompt": "Hi", "chosen": "a", "rejected": "b", "margin": "much"},
        "margin",
        "is text, expected a number",
    ),
    "margin the wrong way round": (
        "preference",
        {"prompt": "Hi", "chosen": "a", "rejected": "b", "margin": -1},
        "margin",
        "from 0 to 10",
    ),
    "weight of nothing": (
        "preference",
        {"prompt": "Hi", "chosen": "a", "rejected": "b", "weight": 0},
        "weight",
        "from 0.01 to 100",
    ),
    "a rank too few": (
        "ranking",
        {"prompt": "Hi", "replies": ["a", "b"], "ranks": [1]},
        "ranks",
        "1 numbers for 2 replies",
    ),
    "one reply to rank": (
        "ranking",
        {"prompt": "Hi", "replies": ["a"], "ranks": [1]},
        "replies",
        "expected 2 to 32",
    ),
    "the same reply at two ranks": (
        "ranking",
        {"prompt": "Hi", "replies": ["a", "a"], "ranks": [1, 2]},
        "replies",
        "same text twice",
    ),
    "half a rank": (
        "ranking",
        {"prompt": "Hi", "replies": ["a", "b"], "ranks": [1, 1.5]},
        "ranks",
        "rank 2 is 1.5",
    ),
    "a reply that is no text": (
        "ranking",
        {"prompt": "Hi", "replies": ["a", 2], "ranks": [1, 2]},
        "replies",
        "reply 2 is a number",
    ),
    "an empty reply to rank": (
        "ranking",
        {"prompt": "Hi", "replies": ["a", " "], "ranks": [1, 2]},
        "replies",
        "reply 2 is empty",
    ),
    "label missing": ("kto", {"prompt": "Hi", "completion": "a"}, "label", "is missing"),
    "label null": ("kto", {"prompt": "Hi", "completion": "a", "label": None}, "label", "is null"),
    "label a number": ("kto", {"prompt": "Hi", "completion": "a", "label": 1}, "label", "a number"),
    "checks as text": ("prompt-only", {"prompt": "Hi", "checks": "x"}, "checks", "is text"),
    "check without kind": ("prompt-only", {"prompt": "Hi", "checks": [{}]}, "checks", "check 1"),
    "family a list": ("prompt-only", {"prompt": "Hi", "family": []}, "family", "a list"),
    "endless id": ("prompt-only", {"prompt": "Hi", "id": "x" * 101}, "id", "longer than 100"),
}


@pytest.mark.parametrize(("kind", "row", "key", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_row_is_refused_by_key_and_reason(kind: str, row: Row, key: str, reason: str):
    with pytest.raises(RowError) as refusal:
        kind_named(kind).read(Fields(row))

    assert refusal.value.key == key
    assert reason in refusal.value.reason


def test_a_missing_key_is_told_with_the_keys_there_are():
    with pytest.raises(RowError, match=r"output: is missing, expected text; the row has .*outptu"):
        kind_named("alpaca").read(Fields({"instruction": "Hi", "outptu": "Hello"}))


@pytest.mark.parametrize("cell", ["true", "TRUE", "1"])
def test_in_a_csv_file_yes_and_no_are_words(cell: str):
    row = Fields({"prompt": "Hi", "completion": "Hello", "label": cell}, is_csv=True)

    assert kind_named("kto").read(row) == RatedExample(
        prompt=Conversation.of(("user", "Hi")), reply="Hello", is_good=True
    )


def test_broken_json_in_a_cell_is_told_by_its_column():
    row = Fields({"messages": '[{"role": "user", "content": NaN}]'}, is_csv=True)

    with pytest.raises(RowError, match=r"messages: holds NaN.*in the cell"):
        kind_named("messages").read(row)

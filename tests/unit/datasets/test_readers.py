"""Each kind of row becomes the one internal form, whatever its container."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from amenable.datasets.detect import kind_named
from amenable.datasets.examples import (
    ConversationExample,
    Example,
    PreferenceExample,
    PromptExample,
    RankingExample,
    RatedExample,
    TextExample,
)
from amenable.datasets.fields import Fields
from amenable.datasets.read import ReadRow, read
from amenable.records.check import Check
from amenable.records.conversation import Conversation

Row = dict[str, object]

USER: Row = {"role": "user", "content": 'What is "salt"?\nIn a word.'}
ASSISTANT: Row = {"role": "assistant", "content": "Sodium chloride, Kochsalz – 食塩."}
ASKED = Conversation.of(("user", 'What is "salt"?\nIn a word.'))
SALT = ASKED.with_reply("Sodium chloride, Kochsalz – 食塩.")
SEA = Conversation.of(("user", "Name a sea."))

# One hand-written file a kind: its rows, and what they mean.
FILES: dict[str, tuple[str, list[Row], list[Example]]] = {
    "openai messages": (
        "messages",
        [
            {"id": "a-1", "messages": [USER, ASSISTANT]},
            {
                "id": "a-2",
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    {"role": "user", "content": "Name a sea."},
                    {"role": "assistant", "content": "The Baltic."},
                    {"role": "user", "content": "Another?"},
                    {"role": "assistant", "content": "The Aegean."},
                ],
            },
        ],
        [
            ConversationExample(conversation=SALT, key="a-1"),
            ConversationExample(
                conversation=Conversation.of(
                    ("system", "Be brief."),
                    ("user", "Name a sea."),
                    ("assistant", "The Baltic."),
                    ("user", "Another?"),
                    ("assistant", "The Aegean."),
                ),
                key="a-2",
            ),
        ],
    ),
    "alpaca": (
        "alpaca",
        [
            {"instruction": "Name a sea.", "input": "", "output": "The Baltic."},
            {"instruction": "Translate.", "input": "Salz, bitte", "output": "Salt, please"},
        ],
        [
            ConversationExample(conversation=SEA.with_reply("The Baltic.")),
            ConversationExample(
                conversation=Conversation.of(
                    ("user", "Translate.\n\nSalz, bitte"), ("assistant", "Salt, please")
                )
            ),
        ],
    ),
    "sharegpt": (
        "sharegpt",
        [
            {
                "conversations": [
                    {"from": "system", "value": "Be brief."},
                    {"from": "human", "value": "Name a sea."},
                    {"from": "gpt", "value": "The Baltic."},
                ]
            }
        ],
        [
            ConversationExample(
                conversation=Conversation.of(
                    ("system", "Be brief."), ("user", "Name a sea."), ("assistant", "The Baltic.")
                )
            )
        ],
    ),
    "prompt and completion": (
        "prompt-completion",
        [{"prompt": "Name a sea.", "completion": "The Baltic."}],
        [ConversationExample(conversation=SEA.with_reply("The Baltic."))],
    ),
    "prompt and completion as turns": (
        "prompt-completion",
        [{"prompt": [USER], "completion": [ASSISTANT]}],
        [ConversationExample(conversation=SALT)],
    ),
    "preference": (
        "preference",
        [{"prompt": "Name a sea.", "chosen": "The Baltic.", "rejected": "Sea sea sea"}],
        [PreferenceExample(prompt=SEA, chosen="The Baltic.", rejected="Sea sea sea")],
    ),
    "preference with how much better, and how much it counts": (
        "preference",
        [
            {
                "prompt": "Name a sea.",
                "chosen": "The Baltic.",
                "rejected": "Paris",
                "margin": 2,
                "weight": 0.5,
            },
            {"prompt": "Name a sea.", "chosen": "Ural.", "rejected": "Paris", "margin": None},
        ],
        [
            PreferenceExample(
                prompt=SEA, chosen="The Baltic.", rejected="Paris", margin=2.0, weight=0.5
            ),
            PreferenceExample(prompt=SEA, chosen="Ural.", rejected="Paris"),
        ],
    ),
    "ranking": (
        "ranking",
        [
            {
                "prompt": "Name a sea.",
                "replies": ["Paris", "The Baltic.", "Ural."],
                "ranks": [2, 1, 2],
            }
        ],
        [RankingExample(prompt=SEA, replies=("Paris", "The Baltic.", "Ural."), ranks=(2, 1, 2))],
    ),
    "preference with the prompt inside": (
        "preference",
        [
            {
                "chosen": [USER, ASSISTANT],
                "rejected": [USER, {"role": "assistant", "content": "No idea."}],
            }
        ],
        [
            PreferenceExample(
                prompt=ASKED,
                chosen="Sodium chloride, Kochsalz – 食塩.",
                rejected="No idea.",
            )
        ],
    ),
    "kto": (
        "kto",
        [
            {"prompt": "Name a sea.", "completion": "The Baltic.", "label": True},
            {"prompt": "Name a sea.", "completion": "Paris", "label": False},
        ],
        [
            RatedExample(prompt=SEA, reply="The Baltic.", is_good=True),
            RatedExample(prompt=SEA, reply="Paris", is_good=False),
        ],
    ),
    "text": (
        "text",
        [{"text": 'The tide, he said, "is out".\n\nNobody – 誰も – moved.'}, {"text": "End."}],
        [
            TextExample(text='The tide, he said, "is out".\n\nNobody – 誰も – moved.'),
            TextExample(text="End."),
        ],
    ),
    "prompt only": (
        "prompt-only",
        [{"id": "p", "prompt": "Name a sea.", "family": "open_question"}],
        [PromptExample(conversation=SEA, key="p", family="open_question")],
    ),
}


@pytest.mark.parametrize("container", ["jsonl", "json", "csv", "parquet"])
@pytest.mark.parametrize(("kind", "rows", "expected"), FILES.values(), ids=FILES.keys())
def test_every_kind_is_read_out_of_every_container(
    write_rows: Callable[[str, Sequence[Mapping[str, object]]], Path],
    container: str,
    kind: str,
    rows: list[Row],
    expected: list[Example],
):
    reading = read(write_rows(container, rows))

    assert reading.kind.name == kind
    assert list(reading.rows) == [ReadRow(n, example) for n, example in enumerate(expected, 1)]


def said(*texts: str) -> list[Row]:
    """Turns of user and assistant."""
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


VARIANTS: dict[str, tuple[str, Row, Example]] = {
    "content in parts": (
        "messages",
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Name "},
                        {"type": "text", "text": "a sea."},
                    ],
                },
                {"role": "assistant", "content": "The Baltic.", "tool_calls": None},
            ]
        },
        ConversationExample(conversation=SEA.with_reply("The Baltic.")),
    ),
    "developer is system": (
        "messages",
        {"messages": [{"role": "developer", "content": "Be brief."}, *said("Hi", "Hello!")]},
        ConversationExample(
            conversation=Conversation.of(
                ("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello!")
            )
        ),
    ),
    "empty system is none": (
        "messages",
        {"messages": [{"role": "system", "content": ""}, *said("Name a sea.", "The Baltic.")]},
        ConversationExample(conversation=SEA.with_reply("The Baltic.")),
    ),
    "system beside": (
        "sharegpt",
        {
            "system": "Be brief.",
            "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}],
        },
        ConversationExample(
            conversation=Conversation.of(
                ("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello!")
            )
        ),
    ),
    "with checks": (
        "messages",
        {
            "family": "write",
            "messages": said("Name a sea.", "The Baltic."),
            "checks": [{"kind": "max_words", "value": 2}],
        },
        ConversationExample(
            conversation=SEA.with_reply("The Baltic."),
            family="write",
            checks=(Check("max_words", 2),),
        ),
    ),
    "alpaca with system and history": (
        "alpaca",
        {
            "instruction": "Another?",
            "input": None,
            "output": "The Aegean.",
            "system": "Be brief.",
            "history": [["Name a sea.", "The Baltic."]],
        },
        ConversationExample(
            conversation=Conversation.of(
                ("system", "Be brief."),
                ("user", "Name a sea."),
                ("assistant", "The Baltic."),
                ("user", "Another?"),
                ("assistant", "The Aegean."),
            )
        ),
    ),
    "implicit prompt in texts": (
        "preference",
        {"chosen": "The sky is blue.", "rejected": "The sky is black."},
        PreferenceExample(
            prompt=Conversation.of(("user", "The sky is")), chosen="blue.", rejected="black."
        ),
    ),
    "implicit prompt in dialogues": (
        "preference",
        {
            "chosen": "\n\nHuman: Name a sea.\n\nAssistant: The Baltic.",
            "rejected": "\n\nHuman: Name a sea.\n\nAssistant: The Ural.",
        },
        PreferenceExample(prompt=SEA, chosen="The Baltic.", rejected="The Ural."),
    ),
    "replies as single turns": (
        "preference",
        {
            "prompt": said("Name a sea."),
            "chosen": [{"role": "assistant", "content": "The Baltic."}],
            "rejected": [{"role": "assistant", "content": "Ural"}],
        },
        PreferenceExample(prompt=SEA, chosen="The Baltic.", rejected="Ural"),
    ),
    "prompt repeated in the replies": (
        "preference",
        {
            "prompt": "Name a sea.",
            "chosen": said("Name a sea.", "The Baltic."),
            "rejected": said("Name a sea.", "Ural"),
        },
        PreferenceExample(prompt=SEA, chosen="The Baltic.", rejected="Ural"),
    ),
    "instruction, input and a pair": (
        "preference",
        {"instruction": "Name", "input": "a sea.", "chosen": "The Baltic.", "rejected": "Ural"},
        PreferenceExample(
            prompt=Conversation.of(("user", "Name\n\na sea.")),
            chosen="The Baltic.",
            rejected="Ural",
        ),
    ),
    "a pair under longer names": (
        "preference",
        {
            "instruction": "Name a sea.",
            "chosen_response": "The Baltic.",
            "rejected_response": "Ural",
        },
        PreferenceExample(prompt=SEA, chosen="The Baltic.", rejected="Ural"),
    ),
    "sharegpt and a pair": (
        "preference",
        {
            "conversations": [{"from": "human", "value": "Name a sea."}],
            "chosen": {"from": "gpt", "value": "The Baltic."},
            "rejected": {"from": "gpt", "value": "Ural"},
        },
        PreferenceExample(prompt=SEA, chosen="The Baltic.", rejected="Ural"),
    ),
    "kto_tag beside messages": (
        "kto",
        {"messages": said("Name a sea.", "The Baltic."), "kto_tag": True},
        RatedExample(prompt=SEA, reply="The Baltic.", is_good=True),
    ),
    "kto_tag beside alpaca": (
        "kto",
        {"instruction": "Name a sea.", "input": "", "output": "Ural", "kto_tag": False},
        RatedExample(prompt=SEA, reply="Ural", is_good=False),
    ),
    "messages that end with the user": (
        "prompt-only",
        {"id": 7, "messages": said("Name a sea.")},
        PromptExample(conversation=SEA, key="7"),
    ),
    "numbers beside text are nobody's business": (
        "text",
        {"text": "By the sea.", "score": 0.5, "meta": {"a": [1]}},
        TextExample(text="By the sea."),
    ),
}


@pytest.mark.parametrize(("kind", "row", "expected"), VARIANTS.values(), ids=VARIANTS.keys())
def test_the_forms_found_in_the_wild_are_read(kind: str, row: Row, expected: Example):
    assert kind_named(kind).read(Fields(row)) == expected

"""Every example comes back from its kept form as it was."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.datasets.examples import (
    ConversationExample,
    Example,
    PreferenceExample,
    PromptExample,
    RankingExample,
    RatedExample,
    TextExample,
    example_from_json,
    opening,
)
from amenable.records.check import Check
from amenable.records.conversation import Conversation, Message

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
names = st.text("abcdefgh-123", max_size=12)
checks = st.lists(
    st.builds(
        Check,
        names,
        st.one_of(
            st.integers(-99, 99), st.booleans(), texts, st.lists(texts, max_size=3).map(tuple)
        ),
    ),
    max_size=3,
).map(tuple)


@st.composite
def prompts(draw: st.DrawFn) -> Conversation:
    """Perhaps a system message, then an odd number of turns."""
    system = [Message("system", draw(texts))] if draw(st.booleans()) else []
    earlier = [
        Message(role, draw(texts))
        for _ in range(draw(st.integers(0, 2)))
        for role in ("user", "assistant")
    ]
    return Conversation((*system, *earlier, Message("user", draw(texts))))


demonstrations = st.builds(Conversation.with_reply, prompts(), texts)
examples: st.SearchStrategy[Example] = st.one_of(
    st.builds(
        ConversationExample, conversation=demonstrations, key=names, family=names, checks=checks
    ),
    st.builds(PromptExample, conversation=prompts(), key=names, family=names, checks=checks),
    st.builds(
        PreferenceExample,
        prompt=prompts(),
        chosen=texts,
        rejected=texts,
        margin=st.floats(0, 10),
        weight=st.floats(0.01, 100),
    ),
    st.integers(2, 5).flatmap(
        lambda num: st.builds(
            RankingExample,
            prompt=prompts(),
            replies=st.tuples(*[texts] * num),
            ranks=st.tuples(*[st.integers(0, 32)] * num),
            weight=st.floats(0.01, 100),
        )
    ),
    st.builds(RatedExample, prompt=prompts(), reply=texts, is_good=st.booleans()),
    st.builds(TextExample, text=texts),
)


@settings(deadline=None)  # machines are shared
@given(examples)
def test_a_kept_example_comes_back_the_same(example: Example):
    assert example_from_json(json.loads(json.dumps(example.to_json()))) == example


def test_a_demonstration_knows_its_prompt():
    said = Conversation.of(("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello!"))

    assert ConversationExample(conversation=said).prompt == Conversation.of(
        ("system", "Be kind."), ("user", "Hi")
    )


@pytest.mark.parametrize(
    "example",
    [
        PromptExample(conversation=Conversation.of(("user", "Hi"))),
        ConversationExample(
            conversation=Conversation.of(
                ("system", "Be kind."),
                ("user", "Hi"),
                ("assistant", "Hello!"),
                ("user", "Bye"),
                ("assistant", "Goodbye!"),
            )
        ),
        RatedExample(prompt=Conversation.of(("user", "Hi")), reply="Hello!", is_good=True),
        TextExample(text="Hi"),
    ],
    ids=["prompt", "dialogue", "rated", "text"],
)
def test_the_opening_is_what_the_person_says_first(example: Example):
    assert opening(example) == "Hi"


def test_a_body_that_was_never_written_so_is_a_bug_and_not_a_guess():
    with pytest.raises(TypeError, match="written as text"):
        example_from_json({"type": "text", "text": 3})

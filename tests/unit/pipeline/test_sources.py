"""Which data sets the loop may be told to use: what they hold is looked at before a run fails."""

from pathlib import Path

import pytest
from tests.unit.feedback.test_export import PROMPT, add_pair, judge

from amenable.datasets.examples import ConversationExample, PromptExample
from amenable.feedback import people
from amenable.pipeline.sources import (
    STARTER_DEMONSTRATIONS,
    STARTER_PROMPTS,
    Demonstrations,
    Sources,
    demonstrations,
    feedback_prompts,
    training_conversations,
)
from amenable.records.check import Check
from amenable.records.conversation import Conversation
from amenable.records.errors import DataError, NotFoundError
from amenable.store import library
from amenable.store.database import Database
from amenable.store.library import DatasetEntry


@pytest.fixture
def filled(database: Database) -> Database:
    """Of each type one set of two rows, the second one sealed; and some sealed otherwise."""
    sets = {
        "chats": ("conversation", [1]),
        "asked": ("prompt", [1]),
        "pairs": ("preference", [1]),
        "plain": ("text", [1]),
        "open": ("prompt", []),
        "open-too": ("prompt", []),
        "shut": ("prompt", [0, 1]),
        "shut-chats": ("conversation", [0, 1]),
    }
    with database.write() as session:
        for name, (kind, exam) in sets.items():
            entry = DatasetEntry(name=name, sha256=name, kind=kind, source="a test")
            library.add_dataset(session, entry, [{"type": kind}] * 2, exam_positions=exam)
    return database


@pytest.mark.parametrize(
    "sources",
    [
        Sources(),  # the starter set, also before it is installed
        Sources(demonstrations=("chats",), prompts=("asked",)),
        Sources(demonstrations=("chats", STARTER_DEMONSTRATIONS), prompts=("asked", "open")),
        Sources(prompts=(STARTER_PROMPTS, "asked")),
    ],
)
def test_what_fits_is_kept(filled: Database, sources: Sources):
    with filled.write() as session:
        sources.keep(session)
        assert Sources.of(session) == sources


@pytest.mark.parametrize(
    ("sources", "said"),
    [
        (
            Sources(demonstrations=("asked",)),
            "'asked' holds prompts, where demonstrations are needed.",
        ),
        (Sources(prompts=("chats",)), "'chats' holds demonstrations, where prompts are needed."),
        (
            Sources(demonstrations=("chats", "pairs")),
            "'pairs' holds preference pairs, where demonstrations are needed.",
        ),
        (Sources(prompts=("plain",)), "'plain' holds plain text, where prompts are needed."),
        (
            Sources(prompts=(STARTER_DEMONSTRATIONS,)),
            "'starter-demonstrations' holds demonstrations, where prompts are needed.",
        ),
        (Sources(prompts=("shut",)), "Every row of 'shut' is sealed to measure with"),
        (Sources(demonstrations=("shut-chats",)), "Every row of 'shut-chats' is sealed"),
        (Sources(prompts=("open",)), "'open' has no sealed rows, so nothing could be measured"),
        (Sources(prompts=("open", "open-too")), "'open' and 'open-too' have no sealed rows"),
        (Sources(prompts=()), "Name at least one set"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line_and_not_kept(
    filled: Database, sources: Sources, said: str
):
    with filled.write() as session:
        with pytest.raises(DataError) as caught:
            sources.keep(session)
        assert str(caught.value).startswith(said)
        assert "\n" not in str(caught.value)
        assert Sources.of(session) == Sources()


def test_an_unknown_set_is_answered_with_the_known_ones(filled: Database):
    with filled.write() as session, pytest.raises(NotFoundError, match=r"'ghost'.*chats"):
        Sources(prompts=("ghost",)).keep(session)


def test_what_repeats_a_sealed_prompt_teaches_nothing(database: Database):
    """Without this, a demonstration file beside a sealed prompt file gives the exam away."""
    told = Conversation.of(
        ("user", "What  is a tide?"), ("assistant", "Water that comes and goes.")
    )
    other = Conversation.of(("user", "What is a dune?"), ("assistant", "A hill of sand."))
    with database.write() as session:
        talks = [ConversationExample(conversation=each).to_json() for each in (told, other)]
        prompts = [
            PromptExample(conversation=Conversation.of(("user", text))).to_json()
            for text in ("what is a tide?", "What is a tide?", "What is a wave?")
        ]
        for name, bodies, exam in (("talks", talks, []), ("asked", prompts, [0])):
            entry = DatasetEntry(name=name, sha256=name, kind=name, source="a test")
            library.add_dataset(session, entry, bodies, exam_positions=exam)
        Sources(demonstrations=("talks",), prompts=("asked",)).keep(session)
        assert [each.conversation for each in training_conversations(session)] == [other]
        kept = [each.conversation.last_user_text() for each in feedback_prompts(session)]
    assert kept == ["What is a wave?"]


def test_mended_replies_are_counted_beside_the_data_sets(database: Database):
    talk = Conversation.of(("user", "What is a dune?"), ("assistant", "A hill of sand."))
    with database.write() as session:
        entry = DatasetEntry(name="talks", sha256="abc", kind="messages", source="a test")
        library.add_dataset(session, entry, [ConversationExample(conversation=talk).to_json()])
        asked = DatasetEntry(name="asked", sha256="def", kind="prompt", source="a test")
        body = PromptExample(conversation=Conversation.of(("user", "And a tide?"))).to_json()
        library.add_dataset(session, asked, [body, body], exam_positions=[0])
        Sources(demonstrations=("talks",), prompts=("asked",)).keep(session)
        add_pair(session, 1, "v1", "v1", "improve")
        ada = people.person(session, "Ada")
        judge(session, ada, "both_bad", mended="The Baltic.", mended_side="right")
        found = demonstrations(session)
    assert found.conversations == [talk, PROMPT.with_reply("The Baltic.")]
    assert (found.sets, found.num_mended) == ({"talks": "abc"}, 1)


def test_what_a_run_began_with_is_read_as_it_was_written(tmp_path: Path):
    chat = Conversation.of(("user", "Zwei\u2028Zeilen\n"), ("assistant", "Ja 🙂"))
    example = ConversationExample(
        conversation=chat, key="k", family="plan", checks=(Check("max_words", 5),)
    )
    found = Demonstrations(
        examples=[example],
        sets={"mine": "abc"},
        num_of={"mine": 1},
        num_mended=0,
        weights={"mine": 0.5},
    )
    assert Demonstrations.kept(tmp_path) is None
    found.keep(tmp_path)
    assert Demonstrations.kept(tmp_path) == found
    assert found.about()["kinds"] == ["max_words"]

"""What pretraining learns from and what it holds out: nothing lost, nothing on both sides."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from amenable.datasets.examples import PromptExample, TextExample
from amenable.pipeline.config import PretrainConfig
from amenable.pipeline.texts import Corpus, parted, place
from amenable.records.conversation import Conversation
from amenable.records.errors import ConfigError, DataError, NotFoundError
from amenable.store import library
from amenable.store.database import Database
from amenable.store.library import DatasetEntry

PAGES = [f"Page {number}. " + "The sea is wide and grey. " * 20 for number in range(40)]


def put(session: Session, name: str, found: Sequence[str], sealed: Sequence[int] = ()) -> None:
    entry = DatasetEntry(
        name=name, sha256=name, kind="text", source="a test", licence=f"terms of {name}"
    )
    bodies = [TextExample(text=text).to_json() for text in found]
    library.add_dataset(session, entry, bodies, exam_positions=sealed)


def corpus(session: Session, *names: str, seed: int = 1, **knobs: Any) -> Corpus:
    return Corpus.of(session, names, PretrainConfig(**knobs), seed)


some_texts = st.lists(
    st.text(st.sampled_from("ab \n"), min_size=1).filter(str.strip), min_size=1, max_size=12
)


@given(found=some_texts, share=st.floats(0.01, 0.5))
def test_every_text_is_on_one_side_and_both_have_one(found: list[str], share: float):
    assume(len({" ".join(text.split()) for text in found}) > 1)
    parts = parted(found, share)
    assert sorted([*parts.learned, *parts.held_out]) == sorted(found)
    assert parts.learned
    assert parts.held_out
    # The same words, however they are broken into lines, are never on both sides.
    learned, held_out = ({" ".join(t.split()) for t in side} for side in parts)
    assert not learned & held_out


def test_what_is_held_out_stays_so_beside_other_texts(database: Database):
    with database.write() as session:
        put(session, "pages", PAGES)
        put(session, "more", [f"More {page}" for page in PAGES])
        alone, both = corpus(session, "pages"), corpus(session, "pages", "more")
    assert set(alone.held_out) <= set(both.held_out)
    assert not set(alone.learned) & set(both.held_out)
    assert alone.held_out == [page for page in PAGES if place(page) < 0.05]
    assert (both.sets, both.licences["more"]) == (
        {"pages": "pages", "more": "more"},
        "terms of more",
    )


def test_sealed_texts_teach_nothing_and_empty_ones_are_counted(database: Database):
    with database.write() as session:
        put(session, "pages", [*PAGES, " \n", ""], sealed=[0, 1])
        found = corpus(session, "pages")
    assert sorted([*found.learned, *found.held_out]) == sorted(PAGES[2:])
    assert found.num_empty == 2


def test_the_seed_takes_some(database: Database):
    with database.write() as session:
        put(session, "pages", PAGES)
        some = corpus(session, "pages", limit=10)
        assert some == corpus(session, "pages", limit=10)
        assert some != corpus(session, "pages", limit=10, seed=2)
    assert len(some.learned) + len(some.held_out) == 10


def test_of_a_single_text_the_end_is_held_out(database: Database):
    with database.write() as session:
        put(session, "book", ["  " + " ".join(PAGES)])
        found = corpus(session, "book", held_out_share=0.1)
    assert found.is_one_text
    (learned,), (held_out,) = found.learned, found.held_out
    assert learned + held_out == " ".join(PAGES).strip()
    assert held_out.startswith(" ")
    assert len(held_out) == pytest.approx(0.1 * len(learned + held_out), abs=10)


def test_a_single_text_without_spaces_is_cut_where_the_share_says(database: Database):
    with database.write() as session:
        put(session, "book", ["あ" * 2000])
        found = corpus(session, "book")
    assert ([len(each) for each in found.learned], len(found.held_out[0])) == ([1900], 100)


def test_too_little_text_says_how_much_is_needed(database: Database):
    with database.write() as session:
        put(session, "note", ["By the sea.", " "])
        with pytest.raises(DataError, match=r"11 bytes of text, and at least 4,096 are needed"):
            corpus(session, "note")
        with pytest.raises(DataError, match="at least one data set"):
            corpus(session)


def test_other_data_is_refused_by_what_it_holds(database: Database):
    with database.write() as session:
        entry = DatasetEntry(name="asked", sha256="a", kind="prompt", source="a test")
        body = PromptExample(conversation=Conversation.of(("user", "Hi"))).to_json()
        library.add_dataset(session, entry, [body])
        put(session, "pages", PAGES)
        with pytest.raises(DataError, match="'asked' holds prompts, where plain text is needed"):
            corpus(session, "pages", "asked")
        with pytest.raises(NotFoundError, match=r"'ghost'.*pages"):
            corpus(session, "ghost")


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"held_out_share": 0.0}, "held_out_share is 0.0"),
        ({"held_out_share": 0.6}, "held_out_share is 0.6"),
        ({"rate_share": 0.0}, "rate_share is 0.0"),
        ({"context": 8}, "context is 8"),
        ({"limit": -1}, "limit is -1"),
    ],
)
def test_knobs_outside_their_range_are_refused(knobs: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        PretrainConfig(**knobs)

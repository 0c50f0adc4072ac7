"""Words that two sets share are found, and nothing is joined that was not said in one breath."""

from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.datasets.overlap import duplicates, ngrams, repeated_ngrams, shared_ngrams


def test_case_and_punctuation_do_not_hide_a_shared_run():
    left = {"a": ["Write a poem about the sea, in two lines!"]}
    right = {"b": ["Please: write A POEM about the sea -- in two lines?"]}

    # nine words are shared, so two runs of eight
    assert [overlap.words[0] for overlap in shared_ngrams(left, right)] == ["write", "a"]


def test_seven_shared_words_are_none():
    left = {"a": ["one two three four five six seven"]}

    assert shared_ngrams(left, {"b": ["one two three four five six seven"]}) == []


def test_runs_do_not_cross_from_one_text_into_the_next():
    assert shared_ngrams({"a": ["one two", "three"]}, {"b": ["one two three"]}, size=3) == []


def test_rows_of_one_set_are_compared_but_not_with_themselves():
    assert repeated_ngrams({"a": ["one two one two"], "b": ["three"]}, size=2) == []
    assert len(repeated_ngrams({"a": ["one two"], "b": ["one two"], "c": ["one two"]}, size=2)) == 2


def test_the_same_words_are_a_duplicate():
    texts = {"a": ["Hi, there"], "b": ["hi there!"], "c": ["Hi", "there"], "d": ["hi there"]}

    assert duplicates(texts) == [("a", "b", "d")]


words = st.lists(st.sampled_from(["sea", "salt", "sun", "sand"]), max_size=12).map(" ".join)


@settings(deadline=None)  # machines are shared
@given(words, words)
def test_two_texts_share_what_both_hold(left: str, right: str):
    found = shared_ngrams({"l": [left]}, {"r": [right]}, size=3)

    assert {overlap.words for overlap in found} == ngrams(left, 3) & ngrams(right, 3)

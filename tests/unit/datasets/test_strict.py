"""What hostile JSON and text may not get past."""

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.datasets.strict import Limits, RowError, parse_json, text_problem

LIMITS = Limits(max_depth=4)

HOSTILE = {
    "nan": (b'{"text": NaN}', "", "holds NaN"),
    "infinity": (b'{"text": -Infinity}', "", "holds -Infinity"),
    "overflow": (b'{"text": 1e999}', "", "too large"),
    "negative overflow": (b"-1e999", "", "too large"),
    "many digits": (b"1" * 5000, "", "more than 18 digits"),
    "nineteen digits": (b"-1000000000000000000", "", "more than 18 digits"),
    "twin keys": (b'{"a": 1, "text": "x", "text": "y"}', "text", "stands twice"),
    "inner twin keys": (b'{"a": {"b": 1, "b": 1}}', "b", "stands twice"),
    "deep lists": (b"[" * 100_000 + b"]" * 100_000, "", "deeper than 4"),
    "deep objects": (b'{"a":' * 50_000 + b"1" + b"}" * 50_000, "", "deeper than 4"),
    "deep and never closed": (b"[" * 100_000, "", "deeper than 4"),
    "deep behind an open string": (b"[[[[[" + b'"\\"' * 100_000, "", "deeper than 4"),
    "invalid utf-8": (b'{"text": "\xff"}', "", "byte 0xff at position 11"),
    "overlong utf-8": (b'"\xc0\xaf"', "", "not UTF-8"),
    "surrogate as utf-8": (b'"\xed\xa0\x80"', "", "not UTF-8"),
    "nul": (b'{"text": "a\x00b"}', "", "NUL"),
    "raw line end": (b'{"text": "a\nb"}', "", "not JSON"),
    "cut off": (b'{"text": "a', "", "not JSON"),
    "more behind": (b'{"text": "a"} {}', "", "not JSON"),
    "single quotes": (b"{'text': 'a'}", "", "not JSON"),
    "trailing comma": (b'{"text": "a",}', "", "not JSON"),
    "nothing": (b"", "", "not JSON"),
}


@pytest.mark.parametrize(("data", "key", "reason"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_json_is_refused_in_words(data: bytes, key: str, reason: str):
    with pytest.raises(RowError) as refusal:
        parse_json(data, LIMITS)

    assert refusal.value.key == key
    assert reason in refusal.value.reason


def test_brackets_inside_of_strings_are_not_depth():
    text = '["' + "[" * 1000 + '\\""]'

    assert parse_json(text.encode(), LIMITS) == json.loads(text)


def test_depth_up_to_the_limit_is_fine():
    assert parse_json(b"[[[[1]]]]", LIMITS) == [[[[1]]]]


def test_an_unclosed_string_full_of_quotes_costs_no_more_than_its_length():
    # 32 brackets and more make the depth count; each escaped quote could start a new search.
    data = b"[" + b"{" * 3 + b'"' + b'\\"' * 500_000

    with pytest.raises(RowError, match="not JSON"):
        parse_json(data, LIMITS)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


@settings(deadline=None)  # machines are shared
@given(json_values)
def test_plain_json_is_read_as_the_standard_library_reads_it(value: object):
    written = json.dumps(value)

    assert parse_json(written.encode(), Limits(max_depth=100)) == json.loads(written)


@settings(deadline=None)  # machines are shared
@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_row_error(data: bytes):
    with suppress(RowError):
        parse_json(data, LIMITS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [("plain", None), ("é 漢 🙂", None), ("a\0b", "NUL"), ("\ud800", "half of a character")],
)
def test_text_that_cannot_be_kept_is_told(text: str, problem: str | None):
    found = text_problem(text)

    assert found is None if problem is None else found is not None and problem in found


def test_unpacking_is_bounded_by_ratio_and_by_size():
    limits = Limits(max_unpacked_bytes=1000, max_unpacking_ratio=10, free_unpacked_bytes=50)

    # 2 bytes may grow to the free 50, 20 to 10 times as much, 500 to no more than all
    assert [limits.unpacked_bytes(packed) for packed in (2, 20, 500)] == [50, 200, 1000]

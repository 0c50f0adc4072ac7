"""Containers hand out the same rows however their bytes arrive, and stop where they break."""

import csv
import gzip
import io
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amenable.datasets.containers.csv_rows import rows_of_csv, split_record
from amenable.datasets.containers.json_list import rows_of_list
from amenable.datasets.containers.jsonl import rows_of_lines
from amenable.datasets.containers.plain import rows_of_text
from amenable.datasets.containers.raw import RawRow, RawRows
from amenable.datasets.containers.unpack import chunks, lines
from amenable.datasets.strict import Limits, Problem, RowError
from amenable.records.errors import DataError

LIMITS = Limits(max_row_bytes=100)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


def values(rows: RawRows) -> list[object]:
    """What the rows hold; problems as they are."""
    return [row.fields.values if isinstance(row, RawRow) else row for row in rows]


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@settings(deadline=None)  # machines are shared
@given(st.lists(st.dictionaries(texts, texts, max_size=3), max_size=4), st.integers(1, 30))
def test_a_list_is_cut_into_the_rows_that_json_finds(rows: list[dict[str, str]], size: int):
    for data in (json.dumps(rows), json.dumps(rows, ensure_ascii=False, indent=1)):
        found = rows_of_list("f.json", pieces(data.encode(), size), Limits())

        assert values(found) == rows


@settings(deadline=None)  # machines are shared
@given(st.lists(st.dictionaries(texts, texts, max_size=3), max_size=4), st.integers(1, 30))
def test_lines_are_the_same_rows_however_they_arrive(rows: list[dict[str, str]], size: int):
    data = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)

    assert values(rows_of_lines(pieces(data.encode(), size), Limits())) == rows


@settings(deadline=None)  # machines are shared
@given(
    st.lists(
        st.tuples(texts, texts).filter(lambda row: "\r" not in "".join(row) and row[0].strip()),
        max_size=4,
    ),
    st.sampled_from([",", ";", "\t"]),
    st.integers(1, 30),
)
def test_csv_says_what_the_standard_writer_wrote(
    rows: list[tuple[str, str]], delimiter: str, size: int
):
    written = io.StringIO()
    csv.writer(written, delimiter=delimiter).writerows([("prompt", "id"), *rows])
    data = written.getvalue().encode()

    assert values(rows_of_csv("f.csv", pieces(data, size), Limits())) == [
        {"prompt": prompt, "id": key} for prompt, key in rows
    ]


@settings(deadline=None)  # machines are shared
@given(st.binary(max_size=80), st.integers(1, 9))
def test_no_bytes_break_a_container_but_with_a_data_error(data: bytes, size: int):
    for rows in (
        rows_of_lines(pieces(data, size), LIMITS),
        rows_of_list("f", pieces(b"[" + data, size), LIMITS),
        rows_of_csv("f", pieces(b"text,id\n" + data, size), LIMITS),
        rows_of_csv("f", pieces(data, size), LIMITS),
        rows_of_text(pieces(data, size), LIMITS),
    ):
        with suppress(DataError):
            values(rows)


@settings(deadline=None)  # machines are shared
@given(st.text('[]{},:"\\ a1\n', max_size=40), st.integers(1, 9))
def test_whatever_json_reads_as_a_list_is_read_the_same(text: str, size: int):
    try:
        expected = json.loads(f"[{text}]")
    except ValueError:
        return
    found = values(rows_of_list("f", pieces(f"[{text}]".encode(), size), LIMITS))

    assert len(found) == len(expected)
    assert [row for row in found if isinstance(row, dict)] == [
        row for row in expected if isinstance(row, dict)
    ]


def test_only_a_line_feed_ends_a_line():
    data = 'a\u2028b\x0bc\rd\n"e"'.encode()

    assert [line.data for line in lines([data], 100)] == ["a\u2028b\x0bc\rd".encode(), b'"e"']


def test_a_line_that_is_too_long_is_told_and_the_next_is_read():
    data = b'{"text": "' + b"x" * 100 + b'"}\n{"text": "ok"}\n'

    for size in (1, 7, 1000):
        assert values(rows_of_lines(pieces(data, size), LIMITS)) == [
            Problem(1, "", "is longer than 100 bytes"),
            {"text": "ok"},
        ]


def test_blank_lines_count_as_lines_but_are_no_rows():
    found = rows_of_lines([b'\n{"text": "a"}\n\n \r\n{"text": 1'], LIMITS)

    assert [row.row if isinstance(row, Problem) else row.number for row in found] == [2, 5]


def test_a_bad_element_of_a_list_is_told_and_the_next_is_read():
    data = b'[{"a": NaN}, {"a": 1], "text", ' + b'{"b": "' + b"x" * 200 + b'"}, , {"a": 2}]'

    found = list(rows_of_list("f.json", [data], LIMITS))

    assert [(each.row, each.reason[:12]) for each in found[:5] if isinstance(each, Problem)] == [
        (1, "holds NaN, w"),
        (2, "is not JSON:"),
        (3, "is text, exp"),
        (4, "is longer th"),
        (5, "is missing b"),
    ]
    assert isinstance(found[5], RawRow)
    assert found[5].fields.values == {"a": 2}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ('[{"a": 1}, {"a": ', "cut off in row 2"),
        ('[{"a": "x', "cut off in row 1"),
        ('[{"a": "x\\', "cut off in row 1"),
        ('[{"a": 1}', "never closed"),
        ('[{"a": 1}]\n[{"a": 2}]', "more stands outside"),
        ('[{"a": 1}}, {"a": 2}]', "closes what was never opened"),
        ("", "never closed"),
    ],
)
def test_a_list_that_breaks_is_refused_whole(data: str, reason: str):
    with pytest.raises(DataError, match=reason):
        list(rows_of_list("f.json", [data.encode()], LIMITS))


def test_an_empty_list_has_no_rows():
    assert list(rows_of_list("f.json", [b" [ \n ] \n"], LIMITS)) == []


def test_a_csv_field_may_hold_delimiters_quotes_and_lines():
    data = b'prompt,completion\r\n"Say ""a, b"".","one\r\n\r\ntwo"\r\nHi,Hello\r\n'

    assert values(rows_of_csv("f.csv", [data], LIMITS)) == [
        {"prompt": 'Say "a, b".', "completion": "one\n\ntwo"},
        {"prompt": "Hi", "completion": "Hello"},
    ]


def test_a_bad_csv_row_does_not_swallow_the_next():
    data = (
        b'prompt,completion\n5" pipe,x\nonly one\na,b,c\n"a"b,c\n\xff,b\n"'
        + b"x" * 200
        + b'\n",y\nHi,Hello\n'
    )
    found = list(rows_of_csv("f.csv", [data], LIMITS))

    assert [(each.row, each.reason) for each in found if isinstance(each, Problem)] == [
        (1, "has a quote inside of a cell that is not quoted"),
        (2, "has 1 cells, expected 2 as in the header"),
        (3, "has 3 cells, expected 2 as in the header"),
        (4, "has text after a closing quote (cell 1)"),
        (5, "is not UTF-8: byte 0xff at position 1 of the row"),
        (6, "is longer than 100 bytes"),
    ]
    assert values(iter(found))[6:] == [{"prompt": "Hi", "completion": "Hello"}]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'text,id\na,1\n"b,2\nc,3\n', "row 2: a quote is opened and not closed"),
        (b'text,id\n"b' + b"x" * 2000, "row 1"),
        (b'text,id\n"b\n' + b"xxxxxxxxx\n" * 200, "row 1: a quote is opened"),
        (b"text,id,text\na,1,b\n", "'text' stands there twice"),
        (b'"text,id\na,1\n', "row 0: a quote is opened"),
        (b'te"xt,id\na,1\n', "header: has a quote"),
        (b"\xfftext,id\na,1\n", "header: is not UTF-8"),
        (b"x" * 200 + b"\na\n", "header: is too long"),
    ],
)
def test_a_csv_file_that_breaks_is_refused_whole(data: bytes, reason: str):
    with pytest.raises(DataError, match=reason):
        list(rows_of_csv("f.csv", [data], LIMITS))


@pytest.mark.parametrize(
    ("record", "cells"),
    [
        ("", [""]),
        (",", ["", ""]),
        ('""', [""]),
        ('"a""b",c', ['a"b', "c"]),
        ("a b, c ", ["a b", " c "]),
    ],
)
def test_cells_are_what_rfc_4180_says(record: str, cells: list[str]):
    assert split_record(record, ",") == cells


def test_a_quote_is_closed_before_the_delimiter():
    with pytest.raises(RowError, match="after a closing quote"):
        split_record('"a" ,b', ",")


def test_paragraphs_are_joined_to_pieces_and_never_torn():
    paragraph = "It was a dark and stormy night. " * 20  # 640 bytes
    data = "\r\n\r\n".join([paragraph] * 5).encode()

    found = values(rows_of_text([data], Limits()))

    # 3 x 640 = 1,920 is not yet enough, 4 x 640 = 2,560 is; the fifth stands alone
    assert found == [{"text": "\n\n".join([paragraph] * 4)}, {"text": paragraph}]


def test_text_in_another_encoding_is_told_by_its_piece():
    found = list(rows_of_text([b"caf\xe9\n"], LIMITS))

    assert found == [Problem(1, "", "is not UTF-8: byte 0xe9 at position 4 of the row")]


def packed(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "f.jsonl.gz"
    path.write_bytes(data)
    return path


def test_gzip_is_unpacked_also_of_several_members(tmp_path: Path):
    path = packed(tmp_path, gzip.compress(b"one\n") + gzip.compress(b"two\n"))

    assert b"".join(chunks(path, LIMITS)) == b"one\ntwo\n"


@pytest.mark.parametrize("kept", [1.0, 0.9, 0.5])
def test_a_gzip_file_that_is_cut_off_or_damaged_is_refused(tmp_path: Path, kept: float):
    whole = gzip.compress(json.dumps(list(range(5000))).encode())
    damaged = whole[:-8] + bytes(8) if kept == 1 else whole[: int(len(whole) * kept)]

    with pytest.raises(DataError, match="cut off" if kept < 1 else "damaged"):
        list(chunks(packed(tmp_path, damaged), LIMITS))


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path):
    limits = Limits(free_unpacked_bytes=100_000, max_unpacking_ratio=20)
    path = packed(tmp_path, gzip.compress(bytes(50_000_000)))
    seen: list[int] = []

    with pytest.raises(DataError, match="unpacks to more than"):
        seen.extend(map(len, chunks(path, limits)))

    assert sum(seen) <= path.stat().st_size * 20


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_another_unicode_is_refused_by_name(tmp_path: Path, encoding: str):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    path = tmp_path / "f.jsonl"
    path.write_bytes((mark + '{"text": "a"}').encode(encoding))

    with pytest.raises(DataError, match="UTF-16; save it as UTF-8"):
        list(chunks(path, LIMITS))

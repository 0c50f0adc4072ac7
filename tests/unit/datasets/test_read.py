"""A file is read row by row, or refused whole with one line that says why."""

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amenable.datasets.examples import TextExample
from amenable.datasets.read import ReadRow, read
from amenable.datasets.strict import Limits, Problem
from amenable.records.errors import DataError, NotFoundError

WriteRows = Callable[[str, Sequence[Mapping[str, object]]], Path]

TEXT_ROW = b'{"text": "By the sea."}\n'
GOOD = ReadRow(1, TextExample(text="By the sea."))


def file(tmp_path: Path, name: str, data: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


def everything(path: Path, kind: str | None = None, limits: Limits | None = None) -> list[object]:
    return list(read(path, kind=kind, limits=limits).rows)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("f.jsonl", TEXT_ROW),
        ("F.JSONL", TEXT_ROW),
        ("f.ndjson", TEXT_ROW.strip()),
        ("f.jsonl", b"\xef\xbb\xbf" + TEXT_ROW),
        ("f.jsonl", b'{"text": "By the sea."}\r\n\r\n'),
        ("f.json", TEXT_ROW),
        ("f.json", b"\xef\xbb\xbf[" + TEXT_ROW + b"]"),
        ("f.jsonl", b"[" + TEXT_ROW + b"]"),
        ("f.csv", b"text\nBy the sea.\n"),
        ("f.csv", b"\xef\xbb\xbftext;n\r\nBy the sea.;1\r\n"),
        ("f.csv", b",text\n0,By the sea.\n"),
        ("f.tsv", b"n\ttext\n1\tBy the sea."),
        ("f.txt", b"By the sea.\n"),
        ("f.jsonl.gz", gzip.compress(TEXT_ROW, mtime=0)),
        ("f.csv.gz", gzip.compress(b"text\nBy the sea.\n", mtime=0)),
        ("f.txt", gzip.compress(b"By the sea.", mtime=0)),
    ],
)
def test_one_row_is_the_same_in_all_spellings_of_a_file(tmp_path: Path, name: str, data: bytes):
    assert everything(file(tmp_path, name, data)) == [GOOD]


REFUSED: dict[str, tuple[str, bytes, str]] = {
    "empty": ("f.jsonl", b"", "is empty"),
    "only a mark": ("f.jsonl", b"\xef\xbb\xbf", "no rows"),
    "only blank lines": ("f.jsonl", b"\n \r\n\n", "no rows"),
    "empty list": ("f.json", b"[]", "no rows"),
    "empty csv": ("f.csv", b"", "is empty"),
    "only a header": ("f.csv", b"text,id\n", "no rows"),
    "empty gzip": ("f.jsonl.gz", gzip.compress(b"", mtime=0), "no rows"),
    "empty text": ("f.txt", b"\n\n", "no rows"),
    "no suffix": ("rows", TEXT_ROW, "tells no format; expected .jsonl"),
    "unknown suffix": ("f.yaml", b"text: a", "tells no format"),
    "zip": ("f.jsonl", b"PK\x03\x04....", "ZIP archive"),
    "spreadsheet": ("f.csv", b"PK\x03\x04....", "spreadsheet"),
    "arrow": ("f.parquet", b"ARROW1..", "Arrow file"),
    "no parquet": ("f.parquet", TEXT_ROW, "not a Parquet file"),
    "cut parquet": ("f.parquet", b"PAR1" + bytes(50), "cannot be read as Parquet"),
    "cut gzip": ("f.jsonl.gz", gzip.compress(TEXT_ROW * 9, mtime=0)[:-9], "cut off"),
    "cut list": ("f.json", b'[{"text": "a"}, {"te', "cut off in row 2"),
    "one object": ("f.json", b'{\n  "text": "a"\n}', "one JSON object"),
    "utf-16": ("f.csv", "\ufefftext\na".encode("utf-16-le"), "UTF-16"),
    "unknown keys": ("f.jsonl", b'{"a": 1, "b": 2}\n', "row 1 has a, b, which is no known kind"),
    "no object anywhere": ("f.jsonl", b"1\n2\n", "row 1: is a number, expected an object"),
    "not json": ("f.jsonl", b"hello\nworld\n", "row 1: is not JSON"),
}


@pytest.mark.parametrize(("name", "data", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_a_file_that_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, name: str, data: bytes, reason: str
):
    with pytest.raises(DataError, match=reason) as refusal:
        everything(file(tmp_path, name, data))

    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_names_out_of_a_file_cannot_write_on_the_terminal(tmp_path: Path):
    names = file(tmp_path, "f.jsonl", b'{"a\\n\\u001b[2J\\ud800": 1, "' + b"x" * 99 + b'": 2}\n')

    with pytest.raises(DataError) as refusal:
        read(names)

    assert f"row 1 has a··[2J·, {'x' * 40}, which" in str(refusal.value)


def test_what_is_no_file_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "absent.jsonl")
    with pytest.raises(DataError, match="is not a file"):
        read(tmp_path)


def test_bad_rows_come_out_as_problems_between_the_good_ones(tmp_path: Path):
    path = file(
        tmp_path,
        "f.jsonl",
        TEXT_ROW
        + b'{"text": NaN}\n{"text": "a", "text": "b"}\n{"txt": "a"}\n'
        + b"[" * 1000
        + b'\n{"text": "\xff"}\n'
        + b'{"text": 1e999}\n{"text": 5}\nhello\n'
        + TEXT_ROW,
    )

    assert everything(path) == [
        GOOD,
        Problem(2, "", "holds NaN, which is not a number JSON knows"),
        Problem(3, "text", "stands twice in one object"),
        Problem(4, "text", "is missing, expected text; the row has txt"),
        Problem(5, "", "is nested deeper than 32 levels"),
        Problem(6, "", "is not UTF-8: byte 0xff at position 11 of the row"),
        Problem(7, "", "holds the number 1e999, which is too large"),
        Problem(8, "text", "is a number, expected text"),
        Problem(9, "", "is not JSON: Expecting value at character 1"),
        ReadRow(10, TextExample(text="By the sea.")),
    ]


def test_the_kind_is_what_most_rows_look_like(tmp_path: Path):
    rows = [{"prompt": "Hi"}, {"text": "a"}, {"text": "b"}]
    path = file(tmp_path, "f.jsonl", "\n".join(map(json.dumps, rows)).encode())

    found = read(path)

    assert found.kind.name == "text"
    assert [type(row) for row in found.rows] == [Problem, ReadRow, ReadRow]


def test_a_given_kind_is_kept_to(tmp_path: Path):
    row = {"prompt": "Hi", "completion": "Hello", "text": "Hi Hello"}
    path = file(tmp_path, "f.jsonl", json.dumps(row).encode())

    assert read(path).kind.name == "prompt-completion"
    assert everything(path, kind="text") == [ReadRow(1, TextExample(text="Hi Hello"))]


def test_the_wrong_kind_is_told_with_the_likely_one(tmp_path: Path):
    path = file(tmp_path, "f.jsonl", TEXT_ROW)

    with pytest.raises(DataError) as refusal:
        everything(path, kind="alpaca")

    assert str(refusal.value) == (
        "f.jsonl: none of its 1 rows can be read as alpaca (instruction, output, perhaps input, "
        "system, history); row 1, key 'instruction': is missing, expected text; the row has text. "
        "Its first row looks like text (text)."
    )


def test_a_kind_that_is_none_is_told_with_those_there_are(tmp_path: Path):
    with pytest.raises(NotFoundError, match=r"no kind of data 'csv'\. There are: alpaca, kto"):
        read(file(tmp_path, "f.jsonl", TEXT_ROW), kind="csv")


def test_plain_text_can_be_nothing_else(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read as alpaca"):
        read(file(tmp_path, "f.txt", b"Hi"), kind="alpaca")


def test_rows_are_bounded(tmp_path: Path):
    with pytest.raises(DataError, match="more than 3 rows; split it"):
        everything(file(tmp_path, "f.jsonl", TEXT_ROW * 4), limits=Limits(max_rows=3))


def test_rows_stream(tmp_path: Path):
    """The first rows are there before the broken end is reached."""
    path = file(tmp_path, "f.json", b"[" + b",".join([TEXT_ROW] * 5000) + b", {")

    rows = read(path).rows

    assert next(rows) == GOOD
    with pytest.raises(DataError, match="cut off in row 5001"):
        list(rows)


def parquet(tmp_path: Path, columns: Mapping[str, object]) -> Path:
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table(dict(columns)), path)
    return path


def test_in_parquet_a_bad_row_is_told_by_its_number(tmp_path: Path):
    bad = pa.array([b"fine", b"\xff\xfe", None]).view(pa.string())

    assert everything(parquet(tmp_path, {"text": bad})) == [
        ReadRow(1, TextExample(text="fine")),
        Problem(2, "text", "is not UTF-8"),
        Problem(3, "text", "is null, expected text"),
    ]


def test_in_parquet_numbers_must_be_finite_too(tmp_path: Path):
    label = pa.array([float("nan"), None])
    columns = {"prompt": ["Hi"] * 2, "completion": ["Hello"] * 2, "label": label}

    with pytest.raises(DataError, match="holds NaN"):
        everything(parquet(tmp_path, columns), kind="kto")


def test_in_parquet_columns_nobody_asks_for_may_be_anything(tmp_path: Path):
    columns = {"text": ["By the sea."], "day": [date(2020, 1, 1)], "raw": [b"\xff"]}

    assert everything(parquet(tmp_path, columns)) == [GOOD]


def test_in_parquet_a_column_of_another_type_is_told(tmp_path: Path):
    with pytest.raises(DataError, match=r"key 'text': is of the type date32.*expected text"):
        everything(parquet(tmp_path, {"text": [date(2020, 1, 1)]}))


def test_in_parquet_unknown_columns_are_listed(tmp_path: Path):
    with pytest.raises(DataError, match="no column is known; it has question, answer"):
        everything(parquet(tmp_path, {"question": ["a"], "answer": ["b"]}))


def test_a_parquet_bomb_is_refused(tmp_path: Path):
    """A dictionary of one long text, repeated: little on disk, much in memory."""
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), ["x" * 50_000])
    path = parquet(tmp_path, {"text": long})
    limits = Limits(free_unpacked_bytes=1_000_000, max_unpacking_ratio=20)

    with pytest.raises(DataError, match="unpacks to more than"):
        everything(path, limits=limits)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_parquet_file_that_is_cut_off_is_refused(tmp_path: Path, share: float):
    whole = parquet(tmp_path, {"text": [f"Row {n}" for n in range(1000)]}).read_bytes()

    with pytest.raises(DataError, match="cannot be read as Parquet"):
        everything(file(tmp_path, "cut.parquet", whole[: int(len(whole) * share)]))


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(4, 1500), st.integers(0, 255))
def test_a_parquet_file_with_a_wrong_byte_gives_rows_or_a_data_error(
    tmp_path: Path, at: int, byte: int
):
    data = bytearray(parquet(tmp_path, {"text": [f"Row {n}" for n in range(40)]}).read_bytes())
    data[at % len(data)] = byte

    try:
        rows = everything(file(tmp_path, "wrong.parquet", bytes(data)))
    except DataError:
        return
    assert all(isinstance(row, (ReadRow, Problem)) for row in rows)


@pytest.mark.parametrize("container", ["jsonl", "json", "csv", "parquet"])
def test_any_text_survives_every_container(write_rows: WriteRows, container: str):
    hard = [
        "a,b;c\td",
        'say "hi"',
        "two\nlines",
        "é 漢 🙂",
        "\u2028\u200b",
        "  spaced  ",
        "\\n",
        "[{",
    ]

    found = everything(write_rows(container, [{"text": text} for text in hard]))

    assert found == [ReadRow(n, TextExample(text=text)) for n, text in enumerate(hard, 1)]

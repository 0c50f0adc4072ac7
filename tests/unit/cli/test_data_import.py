import json
from pathlib import Path

import pytest

from amenable.apps.cli.main import status_of

GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}
UNFINISHED = {"messages": [{"role": "user", "content": "Hi"}]}


def lines(*rows: object) -> str:
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)


def test_good_rows_go_in_and_bad_ones_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "ours.jsonl"
    file.write_text(lines(GOOD, UNFINISHED, "not json", GOOD), "utf-8")
    words = ["data", "import", str(file), "--as", "ours", "--workspace", str(tmp_path / "w")]

    assert status_of([*words, "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert (found["stored"], found["rejected"]) == (2, 2)
    assert [problem["row"] for problem in found["problems"]] == [2, 3]
    assert all(problem.keys() == {"row", "key", "reason"} for problem in found["problems"])


def test_what_cannot_be_read_at_all_is_refused_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "picture.jsonl"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    words = ["data", "import", str(file), "--as", "ours", "--workspace", str(tmp_path / "w")]

    assert status_of([*words, "--json"]) == 2

    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("amenable: ")
    assert told.err.count("\n") == 1


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["data", "import", "nowhere.jsonl", "--as", "ours", "--workspace", str(tmp_path / "w")]

    assert status_of(words) == 2
    assert capsys.readouterr().err == "amenable: nowhere.jsonl does not exist.\n"


def test_a_fifth_of_the_prompts_is_sealed_unless_it_is_said_otherwise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = tmp_path / "prompts.jsonl"
    file.write_text(lines(*({"prompt": f"Name {n} birds."} for n in range(100))), "utf-8")
    where = ["--workspace", str(tmp_path / "w")]

    assert status_of(["data", "import", str(file), "--as", "asked", *where]) == 0
    assert status_of(["data", "list", "--json", *where]) == 0

    said = capsys.readouterr().out
    (row,) = json.loads(said.splitlines()[-1])["datasets"]
    assert 8 <= row["sealed"] <= 32
    assert f"{row['sealed']} of them sealed as an exam" in said


def test_codes_in_a_file_cannot_move_the_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "rude.jsonl"
    rude = json.loads(json.dumps(GOOD))
    rude["messages"][1]["content"] = "\x1b[2J\x1b]0;gone\x07Hello."
    file.write_text(lines(rude), "utf-8")
    where = ["--workspace", str(tmp_path / "w")]
    status_of(["data", "import", str(file), "--as", "rude", *where])

    assert status_of(["data", "show", "rude", *where]) == 0

    said = capsys.readouterr().out
    assert "Hello." in said
    assert "\x1b" not in said

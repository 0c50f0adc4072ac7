"""An import keeps good rows all or not at all, tells the bad ones, and seals by content."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from amenable.datasets.examples import PromptExample, example_from_json
from amenable.datasets.strict import Limits, Problem
from amenable.pipeline import data
from amenable.pipeline.data import ImportResult, exam_draw, import_file
from amenable.records.conversation import Conversation
from amenable.records.errors import ConfigError, ConflictError, DataError, WorkspaceError
from amenable.store import library
from amenable.store.database import Database
from amenable.store.tables import DatasetRow, ExampleRow
from amenable.store.workspace import Workspace


def prompts_file(tmp_path: Path, prompts: Sequence[str], name: str = "prompts.jsonl") -> Path:
    path = tmp_path / name
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return path


def keep(
    place: Database | Workspace, path: Path, name: str = "mine", exam_share: float = 0.0
) -> ImportResult:
    return import_file(
        place, path, name=name, licence="CC0-1.0", source="by hand", exam_share=exam_share
    )


def num_kept(database: Database) -> tuple[int, int]:
    """Data sets and rows."""
    with database.read() as session:
        return (
            session.scalars(select(func.count(DatasetRow.id))).one(),
            session.scalars(select(func.count(ExampleRow.id))).one(),
        )


def prompts_kept(database: Database, name: str = "mine", *, exam: bool = False) -> list[str]:
    with database.read() as session:
        bodies = library.examples(session, name, exam=exam)
    return [
        example.conversation.last_user_text()
        for example in map(example_from_json, bodies)
        if isinstance(example, PromptExample)
    ]


def test_good_rows_go_in_and_bad_ones_are_told(tmp_path: Path, database: Database):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "One?"}\n{"prompt": ""}\nhello\n{"prompt": "Two?"}\n')

    result = keep(database, path)

    assert result.to_json() == {
        "stored": 2,
        "rejected": 2,
        "problems": [
            {"row": 2, "key": "prompt", "reason": "is empty, expected some text"},
            {"row": 3, "key": "", "reason": "is not JSON: Expecting value at character 1"},
        ],
    }
    assert prompts_kept(database) == ["One?", "Two?"]
    with database.read() as session:
        row = library.dataset(session, "mine")
        assert (row.kind, row.num_rows, row.num_rejected) == ("prompt-only", 2, 2)
        assert (row.licence, row.source) == ("CC0-1.0", "by hand")
        assert row.problems == result.to_json()["problems"]


def test_a_workspace_will_do_as_the_place(tmp_path: Path, workspace: Workspace):
    assert keep(workspace, prompts_file(tmp_path, ["One?"])).stored == 1
    assert prompts_kept(workspace.database) == ["One?"]


@pytest.mark.parametrize(
    "rows",
    [b"", b"[", b'{"a": 1}\n', b'{"prompt": ""}\n', b"\xff\xfe{\x00"],
    ids=["empty", "cut off", "unknown kind", "no good row", "utf-16"],
)
def test_a_file_that_cannot_be_read_leaves_nothing(tmp_path: Path, database: Database, rows: bytes):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(rows)

    with pytest.raises(DataError, match=r"rows\.jsonl"):
        keep(database, path)

    assert num_kept(database) == (0, 0)


def test_a_file_that_is_not_there_is_told(tmp_path: Path, database: Database):
    with pytest.raises(DataError, match=r"absent\.jsonl does not exist"):
        keep(database, tmp_path / "absent.jsonl")


def test_a_file_that_changes_under_the_reader_leaves_nothing(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
):
    hashes = iter(["a" * 64, "b" * 64])
    monkeypatch.setattr(data, "hash_file", lambda _: next(hashes))  # pyright: ignore[reportUnknownLambdaType]

    with pytest.raises(DataError, match="changed while it was read"):
        keep(database, prompts_file(tmp_path, ["One?"]))

    assert num_kept(database) == (0, 0)


def test_a_file_that_breaks_at_its_end_leaves_nothing(tmp_path: Path, database: Database):
    path = tmp_path / "rows.json"
    path.write_text("[" + '{"prompt": "Hi"}, ' * 2000 + '{"prom')

    with pytest.raises(DataError, match="cut off in row 2001"):
        keep(database, path)

    assert num_kept(database) == (0, 0)


def test_an_error_in_the_middle_of_the_switch_leaves_nothing(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
):
    def bodies_then_break(_: object) -> Iterator[dict[str, str]]:
        yield from ({"type": "text", "text": "a"} for _ in range(2500))
        raise KeyboardInterrupt

    monkeypatch.setattr(data._Staged, "bodies", bodies_then_break)  # pyright: ignore[reportPrivateUsage]

    with pytest.raises(KeyboardInterrupt):
        keep(database, prompts_file(tmp_path, ["One?"]))

    assert num_kept(database) == (0, 0)


KILLED_IMPORT = """
import os, signal, sys
from pathlib import Path
from amenable.pipeline import data
from amenable.store.database import Database

def bodies_then_die(staged):
    for number in range(int(sys.argv[3])):
        yield {"type": "text", "text": str(number)}
    os.kill(os.getpid(), signal.SIGKILL)

data._Staged.bodies = bodies_then_die
data.import_file(Database.open(Path(sys.argv[1])), Path(sys.argv[2]),
                 name="mine", licence="CC0-1.0", source="by hand")
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
@pytest.mark.parametrize("num_rows", [0, 1500])
def test_a_killed_import_leaves_nothing_and_can_be_repeated(
    tmp_path: Path, database: Database, num_rows: int
):
    path = prompts_file(tmp_path, ["One?", "Two?"])
    command = [sys.executable, "-c", KILLED_IMPORT, str(database.path), str(path), str(num_rows)]

    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL

    assert num_kept(database) == (0, 0)
    assert keep(database, path).stored == 2


def test_the_same_file_under_the_same_name_is_recognised(tmp_path: Path, database: Database):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "One?"}\nhello\n')
    first = keep(database, path, exam_share=0.2)

    again = keep(database, path, exam_share=0.2)

    assert again.to_json() == first.to_json()
    assert (first.is_repeat, again.is_repeat) == (False, True)
    assert num_kept(database) == (1, 1)


def test_another_file_under_the_same_name_is_refused(tmp_path: Path, database: Database):
    keep(database, prompts_file(tmp_path, ["One?"]))

    with pytest.raises(ConflictError, match="Another file is kept as 'mine' already"):
        keep(database, prompts_file(tmp_path, ["One?", "Two?"]))

    assert prompts_kept(database) == ["One?"]


def test_the_same_file_sealed_or_read_otherwise_is_refused(tmp_path: Path, database: Database):
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"Question {n}?", "text": "x"} for n in range(40)]
    path.write_text("\n".join(map(json.dumps, rows)))
    import_file(database, path, name="mine", kind="text", licence="CC0-1.0", source="by hand")

    with pytest.raises(ConflictError, match="with another kind: text then, prompt-only now"):
        import_file(
            database, path, name="mine", kind="prompt-only", licence="CC0-1.0", source="by hand"
        )
    with pytest.raises(ConflictError, match="with another sealed rows: 0 then, 40 now"):
        import_file(
            database,
            path,
            name="mine",
            kind="text",
            licence="CC0-1.0",
            source="by hand",
            exam_share=0.9999,
        )
    with pytest.raises(ConflictError, match="another licence"):
        import_file(database, path, name="mine", kind="text", licence="MIT", source="by hand")


def test_the_same_file_may_have_two_names(tmp_path: Path, database: Database):
    path = prompts_file(tmp_path, ["One?"])

    keep(database, path, "one")
    keep(database, path, "two")

    assert num_kept(database) == (2, 2)


def test_about_a_fifth_is_sealed_and_training_never_sees_it(tmp_path: Path, database: Database):
    asked = [f"What is {n} plus {n}?" for n in range(500)]

    result = keep(database, prompts_file(tmp_path, asked), exam_share=0.2)

    sealed, open_rows = prompts_kept(database, exam=True), prompts_kept(database)
    assert sorted(sealed + open_rows) == sorted(asked)
    assert len(sealed) == result.num_exam
    # binomial: 500 x 0.2 = 100, standard deviation sqrt(500 x 0.2 x 0.8) = 8.9; four of them
    assert 64 < len(sealed) < 136


def test_the_order_of_rows_and_twins_do_not_move_the_seal(tmp_path: Path, database: Database):
    asked = [f"What is {n} plus {n}?" for n in range(60)]
    twins = [prompt.upper().replace(" ", "  ") for prompt in asked]
    shuffled = asked + twins
    random.Random(3).shuffle(shuffled)  # noqa: S311  an order, not a secret

    keep(database, prompts_file(tmp_path, asked), "plain", exam_share=0.2)
    keep(database, prompts_file(tmp_path, shuffled, "more.jsonl"), "twins", exam_share=0.2)

    sealed = set(prompts_kept(database, "plain", exam=True))
    assert set(prompts_kept(database, "twins", exam=True)) == sealed | {
        prompt.upper().replace(" ", "  ") for prompt in sealed
    }


def test_dialogues_that_begin_alike_fall_on_one_side():
    short = PromptExample(conversation=Conversation.of(("user", "Name a sea.")))
    long = PromptExample(
        conversation=Conversation.of(
            ("system", "Be brief."),
            ("user", "name a  sea."),
            ("assistant", "The Baltic."),
            ("user", "Another?"),
        )
    )

    assert exam_draw(short) == exam_draw(long)


@settings(deadline=None)  # machines are shared
@given(st.lists(st.text("abcdef", min_size=1), unique=True, min_size=1, max_size=9))
def test_a_larger_share_only_adds_to_the_exam(prompts: list[str]):
    draws = [
        exam_draw(PromptExample(conversation=Conversation.of(("user", text)))) for text in prompts
    ]

    assert all(0 <= draw < 1 for draw in draws)
    assert [draw < 0.2 for draw in draws] <= [draw < 0.2 or draw < 0.5 for draw in draws]


def test_five_prompts_are_enough_for_an_exam_of_one(tmp_path: Path, database: Database):
    """Six prompts none of which draws below a fifth: the lowest is sealed, with its twin."""
    high = [text for text in map(str, range(100)) if draw_of(text) > 0.2][:6]
    lowest = min(high, key=draw_of)

    result = keep(database, prompts_file(tmp_path, [*high, lowest]), exam_share=0.2)

    assert result.num_exam == 2
    assert prompts_kept(database, exam=True) == [lowest, lowest]


def test_of_four_prompts_none_is_taken_by_force(tmp_path: Path, database: Database):
    high = [text for text in map(str, range(100)) if draw_of(text) > 0.2][:4]

    assert keep(database, prompts_file(tmp_path, high), exam_share=0.2).num_exam == 0


def draw_of(text: str) -> float:
    return exam_draw(PromptExample(conversation=Conversation.of(("user", text))))


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan")])
def test_a_share_is_a_share(tmp_path: Path, database: Database, share: float):
    with pytest.raises(ConfigError, match="exam_share"):
        keep(database, prompts_file(tmp_path, ["One?"]), exam_share=share)


def test_a_check_no_grader_understands_is_a_problem_of_its_row(tmp_path: Path, database: Database):
    path = tmp_path / "rows.jsonl"
    checks: list[dict[str, object]] = [
        {"kind": "max_words", "value": 5},
        {"kind": "max_wrods", "value": 5},
        {"kind": "max_words", "value": "five"},
    ]
    rows = [{"prompt": "Hi", "checks": [check]} for check in checks]
    path.write_text("\n".join(map(json.dumps, rows)))

    result = keep(database, path)

    assert result.stored == 1
    assert [(problem.row, problem.key) for problem in result.problems] == [
        (2, "checks"),
        (3, "checks"),
    ]
    assert "There is no check 'max_wrods'" in result.problems[0].reason
    assert "whole number" in result.problems[1].reason


def test_too_many_bad_rows_refuse_the_file_rather_than_go_unlisted(
    tmp_path: Path, database: Database
):
    path = prompts_file(tmp_path, ["One?", "", "", ""])

    with pytest.raises(DataError, match="more than 2 bad rows, of which the first is: row 2"):
        import_file(
            database,
            path,
            name="mine",
            licence="CC0-1.0",
            source="by hand",
            limits=Limits(max_problems=2),
        )

    assert num_kept(database) == (0, 0)


def test_a_name_that_cannot_be_one_is_refused(tmp_path: Path, database: Database):
    with pytest.raises(ConfigError, match="name"):
        keep(database, prompts_file(tmp_path, ["One?"]), name="../mine")

    assert num_kept(database) == (0, 0)


def test_a_full_disk_is_told_and_nothing_is_kept(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
):
    class Full:
        def write(self, _: bytes) -> int:
            raise OSError(28, "No space left on device")

    def staged_on_a_full_disk(_: object, whole: object = data._Staged) -> object:  # pyright: ignore[reportPrivateUsage]
        assert callable(whole)
        return whole(Full())

    monkeypatch.setattr(data, "_Staged", staged_on_a_full_disk)

    with pytest.raises(WorkspaceError, match="No space left on device"):
        keep(database, prompts_file(tmp_path, ["One?"]))

    assert num_kept(database) == (0, 0)


def test_problems_say_which_row_and_key():
    assert str(Problem(3, "output", "is missing")) == "row 3, key 'output': is missing"
    assert str(Problem(3, "", "is not JSON")) == "row 3: is not JSON"

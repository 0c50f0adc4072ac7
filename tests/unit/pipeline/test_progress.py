"""What a run leaves in its folder while it works."""

import json
import math
from pathlib import Path

import pytest

from amenable.pipeline import progress
from amenable.pipeline.progress import (
    Progress,
    RunLog,
    Stopwatch,
    read_film,
    read_metrics,
    read_progress,
)


def step(done: int, total: int = 10, doing: str = "train") -> Progress:
    return Progress(
        doing=doing,
        done=done,
        total=total,
        unit="steps",
        seconds_spent=1.5,
        seconds_left=2.5,
        rate=100.0,
        rate_unit="tokens a second",
    )


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    return clock


def test_a_run_that_said_nothing_yet_has_nothing_to_read(tmp_path: Path):
    assert read_progress(tmp_path) is None
    assert read_metrics(tmp_path) == []
    assert read_film(tmp_path) == []


def test_progress_comes_back_whole(tmp_path: Path):
    RunLog(tmp_path).progress(step(3))

    assert read_progress(tmp_path) == step(3)


@pytest.mark.parametrize("left", [b"", b"\x00\x00", b'{"doing": "tr', b'{"doing": "train"}', b"3"])
def test_progress_that_a_power_cut_left_half_is_none(tmp_path: Path, left: bytes):
    (tmp_path / "progress.json").write_bytes(left)

    assert read_progress(tmp_path) is None


@pytest.mark.parametrize(
    ("done", "total", "share"), [(3, 4, 0.75), (0, 0, 0.0), (5, 4, 1.0), (0, 4, 0.0)]
)
def test_the_share_lies_between_nothing_and_all(done: int, total: int, share: float):
    assert step(done, total).share == share


def test_what_comes_faster_than_one_can_read_is_left_out_but_never_the_end(
    tmp_path: Path, clock: Clock
):
    log = RunLog(tmp_path)
    shown: list[tuple[str, int]] = []
    for number, doing in ((1, "train"), (2, "train"), (2, "save"), (10, "save")):
        clock.now += 0.1
        log.progress(step(number, doing=doing))
        found = read_progress(tmp_path)
        assert found is not None
        shown.append((found.doing, found.done))

    assert shown == [("train", 1), ("train", 1), ("save", 2), ("save", 10)]


def test_a_number_that_is_none_stays_readable(tmp_path: Path):
    log = RunLog(tmp_path)
    log.metrics(1, {"loss": math.nan, "grad_norm": math.inf})

    text = (tmp_path / "metrics.jsonl").read_text("utf-8")
    assert json.loads(text, parse_constant=pytest.fail)["loss"] is None


def test_metrics_come_back_in_order_and_after_a_step(tmp_path: Path, clock: Clock):
    log = RunLog(tmp_path)
    for number in range(4):
        clock.now += 2.0
        log.metrics(number, {"loss": 4.0 - number})

    assert read_metrics(tmp_path) == [
        {"step": number, "seconds": 2.0 * number + 2, "loss": 4.0 - number} for number in range(4)
    ]
    assert [each["step"] for each in read_metrics(tmp_path, after=2)] == [3]


@pytest.mark.parametrize("torn", ['{"step": 2, "se', "{", '{"step": 2}garb', "\x00\x00", "[1"])
def test_a_torn_last_line_is_no_line_and_spoils_none(tmp_path: Path, torn: str):
    RunLog(tmp_path).metrics(1, {"loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(torn)

    assert [each["step"] for each in read_metrics(tmp_path)] == [1]
    RunLog(tmp_path).metrics(2, {"loss": 0.5})
    assert [each["step"] for each in read_metrics(tmp_path)] == [1, 2]


def test_a_resumed_run_drops_what_it_will_say_again(tmp_path: Path, clock: Clock):
    log = RunLog(tmp_path)
    for number in (1, 2, 3):
        clock.now += 10.0
        log.metrics(number, {"loss": 1.0})
        log.film({"step": number, "replies": []})

    clock.now += 5000.0  # it lay stopped meanwhile
    again = RunLog(tmp_path)
    again.go_back_to(2)
    clock.now += 10.0
    again.metrics(3, {"loss": 0.9})

    assert [(each["step"], each["seconds"]) for each in read_metrics(tmp_path)] == [
        (1, 10.0),
        (2, 20.0),
        (3, 30.0),
    ]
    assert [frame["step"] for frame in read_film(tmp_path)] == [1, 2]


def test_a_stopwatch_tells_pace_and_what_is_left(clock: Clock):
    watch = Stopwatch("train", 100, "steps", rate_unit="tokens a second")
    watch.at(20)  # resumed here: these twenty were not done now
    clock.now += 10.0
    found = watch.at(40, amount=5000)

    assert (found.doing, found.done, found.total, found.unit) == ("train", 40, 100, "steps")
    assert found.seconds_left == pytest.approx(30.0)  # 2 steps a second, 60 left
    assert (found.rate, found.rate_unit) == (500.0, "tokens a second")


def test_a_stopwatch_promises_nothing_before_it_knows(clock: Clock):
    found = Stopwatch("fetch", 10, "files").at(0)

    assert (found.seconds_left, found.rate, found.rate_unit) == (None, None, "files a second")

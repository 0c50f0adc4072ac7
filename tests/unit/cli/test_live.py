from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from amenable.apps.cli import live
from amenable.apps.cli.live import Glance, PlainDisplay, Watch, glance
from amenable.apps.cli.out import Out
from amenable.pipeline.progress import Progress, RunLog
from amenable.records.run import Run
from amenable.store import runs
from amenable.store.runs import RunEnd
from amenable.store.workspace import Workspace

Said = Callable[[], list[str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    def said() -> list[str]:
        return capsys.readouterr().out.splitlines()

    return said


def at(share: float, doing: str = "Training") -> Glance:
    return Glance(title="Finetune", doing=doing, share=share, numbers=f"{share:.0%}")


def test_plain_lines_come_with_each_tenth_and_each_new_thing(said: Said):
    display = PlainDisplay(Out())

    for share in (0.0, 0.02, 0.05, 0.11, 0.12, 0.99, 1.0):
        display.show(at(share))
    display.show(at(0.0, "Answering"))

    assert said() == [
        "Finetune: Training, 0%",
        "Finetune: Training, 11%",
        "Finetune: Training, 99%",
        "Finetune: Training, 100%",
        "Finetune: Answering, 0%",
    ]


def test_a_run_that_waits_says_so():
    run = Run(
        id="align-1", stage="align", status="queued", inputs={}, outputs={}, config={}, seed=1,
        created_at=datetime.now(UTC),
    )  # fmt: skip

    assert glance(run, None, None).line == "Improve: waiting for its turn"


def test_watching_a_run_tells_its_film_and_its_end(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live, "LOOK_SECONDS", 3600)  # it looks when it is left, and not before
    with Workspace.open(tmp_path / "w") as workspace:
        with workspace.database.write() as session:
            run_id = runs.queue(session, stage="finetune", inputs={}, config={}, seed=1)
            runs.start(session, run_id, "somebody")
        log = RunLog(workspace.run_folder(run_id))
        log.progress(Progress(doing="Training", done=1, total=4, unit="steps", seconds_spent=1))
        log.metrics(1, {"loss": 2.5})
        log.film({"step": 0, "replies": [{"prompt": "A poem?", "reply": "A poem? A poem?"}]})
        watch = Watch(workspace, Out(), run_id=run_id)
        with watch:
            pass
        with workspace.database.write() as session:
            end = RunEnd(status="done", outputs={"model": "base-instruct-1"}, seconds=12)
            runs.finish(session, run_id, "somebody", end)
        with Watch(workspace, Out(), run_id=run_id):
            pass  # what has ended already is not told again

    assert said() == [
        "  ○ before training, “A poem?” → A poem? A poem?",
        "Finetune: Training, 1 of 4 steps, loss 2.500",
    ]

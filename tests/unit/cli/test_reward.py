"""amenable reward, what it says, and that no command talks to what it makes."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.journeys.seed import BASE, V1
from tests.unit.cli.conftest import Ask

from amenable.apps.cli import working
from amenable.apps.cli.main import status_of
from amenable.evaluation.agreement import RewardResult, Scored, accuracy, agreement, to_json
from amenable.pipeline.reward import RESULT_FILE
from amenable.pipeline.stage import Context, Stage
from amenable.store import library, runs
from amenable.store.library import ModelEntry
from amenable.store.workspace import Workspace

NAME = f"{BASE}-reward"
SILENT = f"amenable: {NAME} is a reward model: it scores replies, and says nothing itself.\n"


def judges(context: Context) -> dict[str, str]:
    """Three of four are right, the longer reply wins on one; two heads, once of two minds."""
    scored = [Scored((1.0, 1.0), -5)] * 2 + [Scored((3.0, -1.0), -5), Scored((-1.0, -1.0), 5)]
    result = RewardResult(
        held_out=agreement(scored, scored),
        num_prompts_held_out=4,
        num_learned=4,
        learned_accuracy=accuracy(scored),
        num_both_bad=0,
        num_left_out=0,
        is_simulated=True,
    )
    (context.folder / RESULT_FILE).write_bytes(to_json(result))
    return {"model": NAME, "accuracy": "75 %"}


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> None:
    def given() -> Mapping[str, Stage]:
        return {"reward": judges}

    monkeypatch.setattr(working, "stages", given)


@pytest.mark.usefixtures("taught")
def test_a_script_gets_the_run(ask: Ask):
    found = ask("reward", V1, "--num-heads", "2")
    assert (found["stage"], found["status"]) == ("reward", "done")
    assert found["inputs"] == {"model": V1}
    assert found["outputs"] == {"model": NAME, "accuracy": "75 %"}
    assert found["config"]["num_heads"] == 2


@pytest.mark.usefixtures("taught")
def test_a_person_reads_how_often_it_is_right_and_what_length_gets(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert status_of(["reward", V1, "--workspace", str(folder)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"◇ {NAME} Simulated people judged here, not real ones." in said
    assert "Right on what was held out 4 75 % (30 % to 95 %)" in said
    assert "Whoever always takes the shorter reply 4 75 %" in said
    assert "70 to 75 % 4 75 %" in said  # a lead of 1 is a chance of 0.73
    assert "Of its heads, 12 % would choose otherwise than their mean." in said


def test_data_sets_of_another_type_are_refused_before_anything_is_queued(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    where = ["--workspace", str(folder)]
    assert status_of(["reward", V1, "--data", "starter-prompts", *where]) == 2
    assert status_of(["align", V1, "--data", "starter-prompts", *where]) == 2
    kto = ["--preference.loss", "kto"]
    assert status_of(["align", V1, "--data", "starter-prompts", *kto, *where]) == 2
    ordered = "preference pairs or rankings"
    needed = [ordered, ordered, "preference pairs or rated replies"]
    assert capsys.readouterr().err.splitlines() == [
        f"amenable: 'starter-prompts' holds prompts, where {each} are needed." for each in needed
    ]
    with Workspace.open(folder) as workspace, workspace.database.read() as session:
        assert runs.list_runs(session, statuses=("queued",)) == []


@pytest.fixture
def with_reward(folder: Path) -> Path:
    entry = ModelEntry(
        name=NAME,
        sha256="5" * 64,
        kind="reward",
        chat_form="gemma",
        licence="CC0-1.0",
        origin=f"trained here from {V1}",
        folder=f"library/{NAME}",
        parent=V1,
        base=BASE,
        info={"accuracy": "75 % (30 to 95)"},
    )
    with Workspace.open(folder) as workspace, workspace.database.write() as session:
        library.add_model(session, entry)
    return folder


def test_no_command_takes_it_for_a_model_that_talks(
    with_reward: Path, capsys: pytest.CaptureFixture[str]
):
    for command in ("chat", "finetune", "align", "reward", "export", f"compare {BASE}"):
        words = [*command.split(), NAME, *(["somewhere"] if command == "export" else [])]
        assert status_of([*words, "--workspace", str(with_reward)]) == 2
        assert capsys.readouterr().err.endswith(SILENT), command
    with Workspace.open(with_reward) as workspace, workspace.database.read() as session:
        assert runs.list_runs(session, statuses=("queued",)) == []


def test_the_family_shows_it_with_what_it_is_right_on(
    with_reward: Path, capsys: pytest.CaptureFixture[str]
):
    assert status_of(["models", "list", "--workspace", str(with_reward)]) == 0
    assert status_of(["models", "show", NAME, "--workspace", str(with_reward)]) == 0
    listed, shown = capsys.readouterr().out.split(f"◇ {NAME}\n")
    assert f"◇ {NAME}" in listed
    assert "reward model, trained here, right on 75 % (30 to 95)" in listed
    assert "Right on: 75 % (30 to 95)" in shown

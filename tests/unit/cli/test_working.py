import signal
from collections.abc import Mapping

import pytest

from amenable.apps.cli import working
from amenable.apps.cli.out import Out
from amenable.apps.cli.working import Left, see_through
from amenable.pipeline.stage import Context, Stage
from amenable.store import runs
from amenable.store.workspace import Workspace


def queued(workspace: Workspace) -> str:
    with workspace.database.write() as session:
        return runs.queue(session, stage="finetune", inputs={"model": "m"}, config={}, seed=1)


def use(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> None:
    def given() -> Mapping[str, Stage]:
        return {"finetune": stage}

    monkeypatch.setattr(working, "stages", given)


def test_ctrl_c_stops_at_a_safe_point_and_says_how_to_go_on(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    def presses(context: Context) -> dict[str, str]:
        signal.raise_signal(signal.SIGINT)
        context.stop_here()
        return {}

    use(monkeypatch, presses)
    run_id = queued(workspace)

    with pytest.raises(Left, match=f"Go on with: amenable runs resume {run_id}"):
        see_through(workspace, Out(), run_id)
    with workspace.database.read() as session:
        assert runs.get(session, run_id).status == "stopped"


def test_a_second_ctrl_c_stops_at_once(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    def presses_twice(context: Context) -> dict[str, str]:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return {"model": "never made"}

    use(monkeypatch, presses_twice)
    run_id = queued(workspace)

    with pytest.raises(Left, match="what it did is kept"):
        see_through(workspace, Out(), run_id)
    with workspace.database.read() as session:
        run = runs.get(session, run_id)
    assert (run.status, run.outputs) == ("stopped", {})


def test_a_run_that_the_worker_has_is_followed_and_left_at_work(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def never(context: Context) -> dict[str, str]:
        raise AssertionError

    class Pressed:
        def is_set(self) -> bool:
            return True

        def wait(self, seconds: float, /) -> bool:
            return True

    use(monkeypatch, never)
    run_id = queued(workspace)

    with workspace.lock("worker"), pytest.raises(Left, match="goes on without this window"):
        working.until_ended(workspace, Out(), run_id, Pressed())
    assert f"takes run {run_id}; following it" in capsys.readouterr().out
    with workspace.database.read() as session:
        assert runs.get(session, run_id).status == "queued"


def test_a_run_left_behind_by_a_dead_worker_goes_on_here(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    use(monkeypatch, lambda _: {"model": "made"})
    run_id = queued(workspace)
    with workspace.database.write() as session:
        runs.start(session, run_id, "1@0.00")

    assert see_through(workspace, Out(), run_id).outputs == {"model": "made"}

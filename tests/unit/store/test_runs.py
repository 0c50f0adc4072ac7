"""Runs as rows: taken by one worker at a time, and finished whatever happens."""

import re
import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from amenable.records.errors import ConflictError, NotFoundError
from amenable.store import runs
from amenable.store.database import Database
from amenable.store.runs import RunEnd
from amenable.store.tables import RunRow


def queue(database: Database, stage: str = "finetune") -> str:
    with database.write() as session:
        return runs.queue(session, stage=stage, inputs={"model": "base"}, config={"x": 1}, seed=3)


def claim(database: Database, worker: str = "1@1.00") -> str | None:
    with database.write() as session:
        run = runs.claim_next(session, worker)
        return run and run.id


def status(database: Database, run_id: str) -> str:
    with database.read() as session:
        return runs.get(session, run_id).status


def test_a_queued_run_says_what_it_is_by_its_id(database: Database):
    run_id = queue(database)

    assert re.fullmatch(r"finetune-\d{4}-\d\d-\d\d-[0-9a-f]{4}", run_id)
    with database.read() as session:
        run = runs.get(session, run_id)
    assert (run.status, run.inputs, run.config, run.seed) == (
        "queued",
        {"model": "base"},
        {"x": 1},
        3,
    )


@pytest.mark.parametrize("stage", ["", "Finetune", "a b", "../x", "a" * 21])
def test_a_stage_has_a_plain_name(database: Database, stage: str):
    with pytest.raises(ValueError, match="no name of a stage"):
        queue(database, stage)


def test_runs_are_taken_in_the_order_they_were_queued(database: Database):
    queued = [queue(database) for _ in range(3)]

    assert [claim(database) for _ in range(4)] == [*queued, None]


def test_the_order_outlives_a_clock_that_is_set_back(database: Database):
    first = queue(database)
    next_year = datetime.now(UTC) + timedelta(days=365)
    with database.write() as session:
        session.execute(update(RunRow).values(created_at=next_year))
    second, third = queue(database), queue(database)

    with database.read() as session:
        moments = [runs.get(session, run_id).created_at for run_id in (first, second, third)]
    assert moments == [next_year + timedelta(microseconds=n) for n in range(3)]
    assert [claim(database) for _ in range(3)] == [first, second, third]


def test_no_run_is_taken_twice(database: Database):
    queued = {queue(database) for _ in range(20)}
    taken: list[str | None] = []

    def work(worker: str) -> None:
        while (run_id := claim(database, worker)) is not None:
            taken.append(run_id)

    threads = [threading.Thread(target=work, args=(f"{n}@1.00",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(taken) == 20
    assert set(taken) == queued


def test_starting_by_id_takes_a_queued_run_once(database: Database):
    run_id = queue(database)
    with database.write() as session:
        assert runs.start(session, run_id, "1@1.00").status == "running"
        assert runs.start(session, run_id, "1@1.00").status == "running"  # mine already
        with pytest.raises(ConflictError, match="is running"):
            runs.start(session, run_id, "2@1.00")


def test_a_finished_run_keeps_how_it_ended(database: Database):
    run_id = queue(database)
    claim(database)
    end = RunEnd(
        status="done", outputs={"model": "new"}, seconds=2.5, peak_memory_bytes=5_000_000_000
    )
    with database.write() as session:
        run = runs.finish(session, run_id, "1@1.00", end)

    assert (run.status, run.outputs, run.seconds) == ("done", {"model": "new"}, 2.5)
    assert run.peak_memory_bytes == 5_000_000_000
    assert run.started_at is not None
    assert run.finished_at is not None
    assert run.started_at <= run.finished_at


def test_a_worker_that_lost_its_run_can_neither_beat_nor_finish_it(database: Database):
    run_id = queue(database)
    claim(database, "1@1.00")
    with database.write() as session:
        runs.requeue_orphans(session, alive=lambda worker: False)
    claim(database, "2@2.00")

    with database.write() as session:
        assert not runs.heartbeat(session, run_id, "1@1.00")
        assert runs.heartbeat(session, run_id, "2@2.00")
        with pytest.raises(ConflictError, match="another worker"):
            runs.finish(session, run_id, "1@1.00", RunEnd(status="done"))
    assert status(database, run_id) == "running"


def test_orphans_are_queued_again_and_the_living_left_alone(database: Database):
    first, second = queue(database), queue(database)
    claim(database, "1@1.00")
    claim(database, "2@2.00")

    with database.write() as session:
        requeued = runs.requeue_orphans(session, alive=lambda worker: worker == "2@2.00")

    assert requeued == [first]
    assert (status(database, first), status(database, second)) == ("queued", "running")


def test_a_run_that_keeps_killing_its_worker_is_given_up(database: Database):
    run_id = queue(database)
    for _ in range(3):
        assert claim(database) == run_id
        with database.write() as session:
            runs.requeue_orphans(session, alive=lambda worker: False)

    with database.read() as session:
        run = runs.get(session, run_id)
    assert run.status == "failed"
    assert run.error is not None
    assert "died or froze 3 times" in run.error


def test_an_end_by_our_own_hand_is_no_death(database: Database):
    run_id = queue(database)
    for _ in range(4):
        assert claim(database, "41@1.00") == run_id
        with database.write() as session:
            runs.forgive(session, 4)  # another worker
            runs.forgive(session, 41)
            assert runs.requeue_orphans(session, alive=lambda worker: False) == [run_id]


def test_a_queued_run_stops_at_once_and_a_running_one_is_asked(database: Database):
    waiting, running = queue(database), queue(database)
    with database.write() as session:
        runs.start(session, running, "1@1.00")
        runs.request_stop(session, waiting)
        runs.request_stop(session, running)

    assert status(database, waiting) == "stopped"
    with database.read() as session:
        assert runs.is_stop_requested(session, running)


def test_a_stop_request_to_a_dead_worker_is_kept(database: Database):
    run_id = queue(database)
    claim(database)
    with database.write() as session:
        runs.request_stop(session, run_id)
        assert runs.requeue_orphans(session, alive=lambda worker: False) == []

    assert status(database, run_id) == "stopped"


@pytest.mark.parametrize("ended", ["stopped", "failed"])
def test_what_stopped_or_failed_is_queued_again_without_the_old_request(
    database: Database, ended: runs.RunStatus
):
    run_id = queue(database)
    claim(database)
    with database.write() as session:
        runs.request_stop(session, run_id)
        runs.finish(session, run_id, "1@1.00", RunEnd(status=ended, error="why"))
        assert runs.requeue(session, run_id).status == "queued"

    assert claim(database) == run_id
    with database.read() as session:
        assert not runs.is_stop_requested(session, run_id)
        assert runs.get(session, run_id).error is None


def test_what_waits_works_or_is_done_is_not_queued_again(database: Database):
    run_id = queue(database)
    with database.write() as session:
        with pytest.raises(ConflictError, match="queued already"):
            runs.requeue(session, run_id)
        runs.start(session, run_id, "1@1.00")
        with pytest.raises(ConflictError, match="running already"):
            runs.requeue(session, run_id)
        runs.finish(session, run_id, "1@1.00", RunEnd(status="done"))
        with pytest.raises(ConflictError, match="done"):
            runs.requeue(session, run_id)


def test_lists_show_the_newest_first_and_can_be_narrowed(database: Database):
    first, second, third = queue(database), queue(database, "sample"), queue(database)
    claim(database)

    with database.read() as session:
        assert [run.id for run in runs.list_runs(session)] == [third, second, first]
        assert [run.id for run in runs.list_runs(session, stage="sample")] == [second]
        assert [run.id for run in runs.list_runs(session, statuses=("running",))] == [first]
        assert [run.id for run in runs.list_runs(session, limit=1)] == [third]


def test_the_heartbeat_of_a_workers_run_is_found_by_its_number(database: Database):
    queue(database)
    claim(database, "41@1.00")
    long_ago = datetime.now(UTC) - timedelta(minutes=5)
    with database.write() as session:
        session.execute(update(RunRow).values(heartbeat_at=long_ago))

    with database.read() as session:
        assert runs.newest_heartbeat(session, 41) == long_ago
        assert runs.newest_heartbeat(session, 4) is None


def test_an_unknown_run_is_named_with_those_there_are(database: Database):
    run_id = queue(database)

    with database.read() as session, pytest.raises(NotFoundError, match=run_id):
        runs.get(session, "finetune-none")

"""A person judges over HTTP: submit, repeat, conflict, undo, mend, skip, improve; and chats."""

import json
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.journeys.seed import engine
from tests.journeys.texts import BASE, V1, V2
from tests.journeys.web import guest

from amenable.feedback.export import comparisons, mended_demonstrations
from amenable.records.errors import ModelError
from amenable.store import runs
from amenable.store.tables import JudgementRow, SampleRow, VerdictRow
from amenable.store.workspace import Workspace

IMPROVE = {"purpose": "improve"}


def attribute(html: str, name: str) -> int:
    return int(html.partition(f'data-{name}="')[2].partition('"')[0])


def held(client: TestClient) -> dict[str, Any]:
    """An answer to the pair that this person holds, but for the choice."""
    html = client.get("/judge", params=IMPROVE).text
    return {
        "task_id": attribute(html, "task"),
        "fence": attribute(html, "fence"),
        "seconds_spent": 4.2,
        **IMPROVE,
    }


def judge(client: TestClient, number: int, choice: str = "left") -> None:
    for position in range(number):
        answer = {**held(client), "submission_id": f"answer-{position:04}", "choice": choice}
        assert client.post("/judge/submissions", json=answer).status_code == 200


def num_judged(workspace: Workspace) -> int:
    with workspace.database.read() as session:
        return len(comparisons(session, "improve"))


def test_a_choice_is_kept_and_the_next_pair_comes(workspace: Workspace):
    with guest(workspace, "judging") as client:
        first = held(client)
        answer = {**first, "submission_id": "answer-0001", "choice": "left"}
        news = client.post("/judge/submissions", json=answer).json()

    assert news["done"] == 14
    assert attribute(news["html"], "task") != first["task_id"]
    assert num_judged(workspace) == 14


def test_a_repeat_is_kept_once(workspace: Workspace):
    with guest(workspace, "judging") as client:
        answer = {**held(client), "submission_id": "answer-0001", "choice": "right"}
        replies = [client.post("/judge/submissions", json=answer) for _ in range(3)]

    assert [reply.status_code for reply in replies] == [200, 200, 200]
    assert replies[0].json() == replies[2].json()
    assert num_judged(workspace) == 14


def test_the_same_id_with_another_choice_is_a_conflict(workspace: Workspace):
    with guest(workspace, "judging") as client:
        answer = {**held(client), "submission_id": "answer-0001", "choice": "right"}
        client.post("/judge/submissions", json=answer)
        reply = client.post("/judge/submissions", json={**answer, "choice": "left"})

    assert reply.status_code == 409
    assert "the first one stands" in reply.json()["error"]


def test_a_stale_fence_is_a_conflict(workspace: Workspace):
    with guest(workspace, "judging") as client:
        now = held(client)
        answer = {**now, "fence": now["fence"] + 1, "submission_id": "answer-1", "choice": "tie"}
        reply = client.post("/judge/submissions", json=answer)
        assert reply.status_code == 409
        assert held(client)["task_id"] == now["task_id"]

    assert num_judged(workspace) == 13


def test_undo_hands_the_last_pair_back(workspace: Workspace):
    with guest(workspace, "judging") as client:
        first = held(client)
        answer = {**first, "submission_id": "answer-0001", "choice": "left"}
        client.post("/judge/submissions", json=answer)
        news = client.post("/judge/undo", json=IMPROVE).json()
        assert attribute(news["html"], "task") == first["task_id"]
        assert news["done"] == 13
        again = {
            **answer, "submission_id": "answer-0002", "choice": "right",
            "fence": attribute(news["html"], "fence"),
        }  # fmt: skip
        assert client.post("/judge/submissions", json=again).status_code == 200

    with workspace.database.read() as session:
        assert comparisons(session, "improve")[-1].choice == "right"


def test_both_bad_can_be_mended(workspace: Workspace):
    with guest(workspace, "judging") as client:
        answer = {
            **held(client), "submission_id": "answer-0001", "choice": "both_bad",
            "mended": "What I would have liked to read.", "mended_side": "right",
        }  # fmt: skip
        assert client.post("/judge/submissions", json=answer).status_code == 200

    with workspace.database.read() as session:
        (demonstration,) = mended_demonstrations(session)
    assert demonstration.conversation.messages[-1].text == "What I would have liked to read."


def test_a_skipped_pair_counts_as_no_choice(workspace: Workspace):
    with guest(workspace, "judging") as client:
        answer = {
            **held(client), "submission_id": "answer-0001", "choice": "skip",
            "reason": "The prompt is unclear",
        }  # fmt: skip
        assert client.post("/judge/submissions", json=answer).json()["done"] == 13

    with workspace.database.read() as session:
        kept = session.query(JudgementRow).order_by(JudgementRow.id.desc()).first()
        assert kept is not None
        assert (kept.choice, kept.reason) == ("skip", "The prompt is unclear")


@pytest.mark.parametrize(
    "change",
    [
        {"choice": "up"}, {"submission_id": "short"}, {"submission_id": "a" * 41},
        {"seconds_spent": -1}, {"mended": "a" * 9000}, {"task_id": 0}, {"person_id": 5},
        {"mended": "text without its side"},
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused_and_nothing_is_kept(
    workspace: Workspace, change: dict[str, object]
):
    with guest(workspace, "judging") as client:
        answer = {**held(client), "submission_id": "answer-0001", "choice": "left", **change}
        reply = client.post("/judge/submissions", json=answer)

    assert reply.status_code in (400, 422)
    assert reply.json()["error"]
    assert num_judged(workspace) == 13


def test_improve_opens_at_twenty_and_queues_a_run(workspace: Workspace):
    with guest(workspace, "judging") as client:
        judge(client, 6)
        refusal = client.post("/judge/improve", follow_redirects=False)
        assert refusal.status_code == 422
        assert "judge 1 more" in refusal.json()["error"]
        answer = {**held(client), "submission_id": "the-twentieth", "choice": "left"}
        assert client.post("/judge/submissions", json=answer).json()["can_improve"]
        reply = client.post("/judge/improve", follow_redirects=False)

    with workspace.database.read() as session:
        (run,) = runs.list_runs(session, stage="align")
    assert reply.headers["location"] == f"/runs/{run.id}"
    assert run.status == "queued"


def test_forms_of_pages_with_script_are_led_on_by_a_header(workspace: Workspace):
    with guest(workspace, "judged") as client:
        reply = client.post("/judge/improve", headers={"hx-request": "true"})

    assert reply.status_code == 204
    assert reply.headers["hx-redirect"].startswith("/runs/align-")


def test_the_room_hides_which_model_wrote_what(workspace: Workspace):
    with guest(workspace, "proving") as client:
        html = client.get("/judge").text

    assert 'data-purpose="proof"' in html
    assert V1 not in html
    assert V2 not in html


def test_when_all_pairs_are_judged_the_room_says_what_comes_next(workspace: Workspace):
    with guest(workspace, "judging") as client:
        judge(client, 27)
        html = client.get("/judge").text

    assert "You judged 40 pairs" in html
    assert "Improve" in html


def test_a_run_can_be_stopped_and_continued(workspace: Workspace):
    with guest(workspace, "judged") as client:
        path = client.post("/judge/improve", follow_redirects=False).headers["location"]
        client.post(f"{path}/stop")
        assert "Continue" in client.get(path).text
        client.post(f"{path}/continue")
        assert client.get(f"{path}/live").json()["status"] == "queued"


def asked(model: str) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "Hello **you**"}]}


def events(body: str) -> list[dict[str, Any]]:
    return [json.loads(part.removeprefix("data: ")) for part in body.strip().split("\n\n")]


def test_a_reply_streams_and_is_kept_as_a_sample(workspace: Workspace):
    with guest(workspace, "judging") as client:
        reply = client.post("/chat/replies", json=asked(V1))
        *pieces, last = events(reply.text)
        thumb = {"sample_id": last["sample_id"], "is_good": False, "reason": "too short"}
        assert client.post("/chat/verdicts", json=thumb).status_code == 204
        assert client.post("/chat/verdicts", json={**thumb, "is_good": True}).status_code == 204

    assert reply.headers["content-type"].startswith("text/event-stream")
    assert "".join(piece["piece"] for piece in pieces) == last["text"]
    assert last["stop_reason"] == "stop"
    with workspace.database.read() as session:
        kept = session.get(SampleRow, last["sample_id"])
        (verdict,) = session.query(VerdictRow).all()
        assert kept is not None
        assert (kept.model_name, kept.reply) == (V1, last["text"])
        assert (verdict.is_good, verdict.reason) == (True, "too short")


def test_an_unknown_model_is_said_in_the_stream(workspace: Workspace):
    with guest(workspace, "judging") as client:
        (event,) = events(client.post("/chat/replies", json=asked("nobody")).text)

    assert "There is no model 'nobody'" in event["error"]


def test_an_engine_that_fails_is_said_in_the_stream(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    speaks = engine()
    with guest(workspace, "judging", speaks) as client:

        def fails(*_: object) -> None:
            raise ModelError("The serving process does not answer.")

        monkeypatch.setattr(speaks, "stream", fails)
        (event,) = events(client.post("/chat/replies", json=asked(BASE)).text)

    assert event == {"error": "The serving process does not answer."}


def test_a_conversation_in_disorder_is_refused(workspace: Workspace):
    messages = [{"role": "assistant", "content": "I begin."}]
    with guest(workspace, "judging") as client:
        reply = client.post("/chat/replies", json={"model": V1, "messages": messages})

    assert reply.status_code == 400
    assert "user speaks next" in reply.json()["error"]


def test_what_the_model_sees_is_shown_as_text(workspace: Workspace):
    messages = [{"role": "user", "content": "<b>bold</b>"}]
    body = {"voices": [{"model": model, "messages": messages} for model in (BASE, V1)]}
    with guest(workspace, "judging") as client:
        html = client.post("/chat/tokens", json=body).text

    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    assert "token structure" in html


def test_thumbs_are_for_what_was_said_here(workspace: Workspace):
    with guest(workspace, "judging") as client:
        reply = client.post("/chat/verdicts", json={"sample_id": 1, "is_good": True})

    assert reply.status_code == 409


def test_a_file_is_imported_and_its_bad_rows_are_listed(workspace: Workspace):
    rows = '{"prompt": "What is a tide?"}\n{"prompt": 7}\n{"prompt": "Why is the sea salty?"}\n'
    with guest(workspace, "judging") as client:
        reply = client.post(
            "/data/import",
            data={"name": "sea", "is_exam_sealed": "yes"},
            files={"file": ("sea.jsonl", rows.encode())},
        )
        assert reply.status_code == 200
        html = client.get("/data").text
        unknown = client.get("/data", params={"added": "<b>sea</b>"}).text

    assert '2 rows are stored as <a href="#sea">sea</a>; 1 was rejected' in reply.text
    assert "stored as" not in html + unknown
    assert 'id="sea"' in html
    assert "1 row was not taken" in html


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [("sea", b"", 400), ("sea", b"\x00\x01\x02", 400), ("../sea", b"{}", 422), ("", b"{}", 422)],
)
def test_a_file_that_is_none_is_refused_whole(
    workspace: Workspace, name: str, content: bytes, status: int
):
    with guest(workspace, "judging") as client:
        files = {"file": ("sea.jsonl", content)}
        reply = client.post("/data/import", data={"name": name}, files=files)
        assert reply.status_code == status
        assert reply.json()["error"]
        assert 'id="sea"' not in client.get("/data").text

    assert not list(workspace.downloads.iterdir())


def test_the_loop_begins_when_the_terms_are_accepted(workspace: Workspace):
    with guest(workspace) as client:
        assert "Gemma Terms of Use" in client.get("/").text
        client.post("/begin", data={"model": BASE, "is_accepted": "yes"})
        assert "Accept and fetch" not in client.get("/").text

    with workspace.database.read() as session:
        (run,) = runs.list_runs(session)
    assert (run.stage, run.inputs["model"], run.status) == ("prepare", BASE, "queued")


def test_ones_own_data_begins_a_loop_of_its_own(workspace: Workspace):
    with guest(workspace, "judging") as client:
        form = {
            "model": "./my-base", "demonstrations": "starter-demonstrations",
            "prompts": "support-questions",
        }  # fmt: skip
        assert client.post("/data/own", data=form, follow_redirects=False).status_code == 303

    with workspace.database.read() as session:
        run = runs.list_runs(session)[0]
    assert (run.stage, run.inputs["model"]) == ("prepare", "./my-base")


def test_models_of_ones_choice_are_compared_with_a_guest(workspace: Workspace):
    guest_name = "llama@http://127.0.0.1:9/v1"
    with guest(workspace, "done") as client:
        assert "Compare others" in client.get("/report").text
        form = {"models": [BASE, V1, BASE], "guest": f" {guest_name} "}
        reply = client.post("/report/compare", data=form, follow_redirects=False)
        run_id = reply.headers["location"].removeprefix("/runs/")

    with workspace.database.read() as session:
        run = runs.get(session, run_id)
    assert (run.stage, run.inputs["models"]) == ("compare", f"{BASE},{V1},{guest_name}")


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({}, 422),
        ({"models": ["ghost"]}, 404),
        ({"models": [BASE], "guest": "llama at home"}, 400),
        ({"models": [BASE], "guest": "llama@ftp://host"}, 422),
        ({"models": [BASE], "guest": "llama@http://[::1:11434"}, 422),
        ({"models": [BASE] * 9}, 422),
    ],
)
def test_a_comparison_of_nobody_is_refused(workspace: Workspace, form: dict[str, Any], status: int):
    with guest(workspace, "judging") as client:
        with workspace.database.read() as session:
            before = len(runs.list_runs(session))
        reply = client.post("/report/compare", data=form)
        assert reply.status_code == status
        assert reply.json()["error"]
        with workspace.database.read() as session:
            assert len(runs.list_runs(session)) == before


def test_a_closed_loop_goes_round_again(workspace: Workspace):
    with guest(workspace, "done") as client:
        assert "Go round again" in client.get("/").text
        assert client.post("/again", follow_redirects=False).status_code == 303
        assert "Version 2 is writing replies for you to judge" in client.get("/").text
        assert client.post("/again", follow_redirects=False).status_code == 409

    with workspace.database.read() as session:
        run = runs.list_runs(session)[0]
    assert (run.stage, run.inputs, run.config["purpose"]) == ("sample", {"model": V2}, "improve")


def test_when_the_pairs_run_out_more_are_drawn(workspace: Workspace):
    with guest(workspace, "judging") as client:
        for at in range(27):
            answer = {**held(client), "submission_id": f"skipped-{at:04}", "choice": "skip"}
            assert client.post("/judge/submissions", json=answer).status_code == 200
        assert "Draw more replies" in client.get("/judge").text
        assert client.post("/judge/more", follow_redirects=False).status_code == 303
        assert client.post("/judge/more", follow_redirects=False).status_code == 409

"""Every page stands in every state of the loop, and says what it must."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient
from tests.journeys.seed import STAGES, Stage, engine
from tests.journeys.texts import BASE, V1, V2
from tests.journeys.web import guest

from amenable.apps.web.app import create_app
from amenable.reports.result import RESULT_FILE
from amenable.store import library, runs
from amenable.store.library import ModelEntry
from amenable.store.runs import RunEnd
from amenable.store.workspace import Workspace

UNREAD = "The newest result cannot be read"
PAGES = (
    "/",
    "/chat",
    "/judge",
    "/data",
    "/models",
    "/runs",
    "/train",
    "/train/finetune",
    "/train/align",
    "/report",
)


def text(client: TestClient, path: str) -> str:
    reply = client.get(path, headers={"accept": "text/html"})
    assert reply.status_code == 200, reply.text
    return reply.text


@pytest.mark.parametrize("stage", STAGES)
def test_every_page_stands_in_every_state_with_one_filled_button_at_most(
    workspace: Workspace, stage: Stage
):
    with guest(workspace, stage) as client:
        for page in PAGES:
            html = text(client, page)
            assert "<h1" in html or 'class="pair"' in html
            shown = html.count('class="button filled') - html.count("data-improve hidden")
            assert shown <= 1, page
        with workspace.database.read() as session:
            found = runs.list_runs(session)
        for run in found:
            assert run.id in text(client, f"/runs/{run.id}")
            live = client.get(f"/runs/{run.id}/live").json()
            assert live["status"] == run.status


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("new", "Accept and fetch"),
        ("failed", "Continue"),
        ("finetuning", "Chat with the base model"),
        ("judging", "Judge 7 more"),
        ("judged", "Improve"),
        ("proving", "blind pairs"),
        ("done", "Read the report"),
    ],
)
def test_home_names_the_next_step(workspace: Workspace, stage: Stage, words: str):
    with guest(workspace, stage) as client:
        assert words in text(client, "/")


def test_home_says_how_far_a_run_is(workspace: Workspace):
    with guest(workspace, "finetuning") as client:
        html = text(client, "/")

    assert "31 of 84 steps" in html
    assert "tokens a second" in html
    assert "before" in html  # the first column of the film strip
    assert "-11.30" in html


def test_chat_works_with_the_base_alone(workspace: Workspace):
    with guest(workspace, "finetuning") as client:
        html = text(client, "/chat")

    assert BASE in html
    assert "still learning" in html


def test_chat_puts_the_base_left_and_the_newest_version_right(workspace: Workspace):
    with guest(workspace, "done") as client:
        html = text(client, "/chat")

    left, right = html.split('data-model="right"')
    assert f'<option value="{BASE}" data-kind="base" selected>' in left
    assert f'<option value="{V2}" data-kind="instruct" selected>' in right
    assert "it failed this one" in html


def test_simulated_people_are_named_on_every_page(workspace: Workspace):
    with guest(workspace, "simulated") as client:
        for page in (*PAGES[:2], *PAGES[3:]):
            assert "simulated" in text(client, page), page


def test_people_are_not_called_simulated(workspace: Workspace):
    with guest(workspace, "done") as client:
        for page in PAGES:
            assert "simulated-tag" not in text(client, page), page


def test_the_report_names_the_weakest_family_and_what_could_be_chance(workspace: Workspace):
    with guest(workspace, "done") as client:
        html = text(client, "/report")

    assert "Weakest: arithmetic" in html
    assert "could be chance" in html
    assert "What your votes taught" in html
    assert "gemma-3-270m (helped)" in html


def spoil_newest_result(workspace: Workspace, content: bytes) -> None:
    with workspace.database.read() as session:
        run = next(run for run in runs.list_runs(session) if run.stage == "compare")
    (workspace.run_folder(run.id) / RESULT_FILE).write_bytes(content)


@pytest.mark.parametrize("content", [b"", b"{", b'{"models": [], "rows": []}', b"\xff\xfe"])
def test_a_result_that_cannot_be_read_takes_no_page_away(workspace: Workspace, content: bytes):
    with guest(workspace, "judged") as client:
        assert UNREAD not in text(client, "/report")
        spoil_newest_result(workspace, content)
        for page in PAGES:
            text(client, page)
        html = text(client, "/report")

    assert UNREAD in html
    assert "Proof comes here" in html
    assert 'action="/report/compare"' in html


def test_while_the_newest_result_cannot_be_read_the_one_before_it_stands(workspace: Workspace):
    with guest(workspace, "done") as client:
        spoil_newest_result(workspace, b"{}")
        html = text(client, "/report")

    assert UNREAD in html
    assert "this one is older" in html
    assert "Weakest: arithmetic" in html  # of base and version 1, compared before


def test_data_lists_what_was_rejected_and_why(workspace: Workspace):
    with guest(workspace, "judging") as client:
        html = text(client, "/data")

    assert "support-questions" in html
    assert "turn 2 is by user, not assistant" in html


def test_models_show_licence_and_export(workspace: Workspace):
    with guest(workspace, "done") as client:
        html = text(client, "/models")

    assert "Gemma Terms of Use" in html
    assert f"amenable export {V1}" in html


def test_commands_to_copy_name_a_workspace_that_is_not_the_usual_one(workspace: Workspace):
    with guest(workspace, "done") as client:
        html = text(client, "/models")
        client.cookies.clear()
        doors = [client.get(path, headers={"accept": "text/html"}).text for path in ("/", "/start")]

    elsewhere = f"--workspace {workspace.folder}"
    for command in (f"export {V1} ./{V1}", "models add smollm2-135m-instruct"):
        assert f"<code>amenable {command} {elsewhere}</code>" in html
        assert f'data-copy="amenable {command} {elsewhere}"' in html
    for door in doors:
        assert f"<code>amenable start {elsewhere}</code>" in door


def test_commands_to_copy_leave_out_the_usual_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with Workspace.open(Path("amenable-workspace")) as usual, guest(usual, "done") as client:
        html = text(client, "/models")

    assert "<code>amenable models add smollm2-135m-instruct</code>" in html
    assert "--workspace" not in html


def test_what_a_run_made_has_a_name_and_what_it_counted_is_said_in_words(workspace: Workspace):
    made = {"model": "m-instruct-2", "judged": "24", "longer": "3", "newest_vote": "311"}
    with guest(workspace) as client:
        with workspace.database.write() as session:
            run_id = runs.queue(session, stage="align", inputs={"model": "m"}, config={}, seed=1)
            runs.start(session, run_id, "1@1.00")
            runs.finish(session, run_id, "1@1.00", RunEnd(status="done", outputs=made))
        html = text(client, f"/runs/{run_id}")
    assert "<dt>made: model</dt><dd>m-instruct-2</dd>" in html
    assert "<dt>Found</dt><dd>24 judged, chosen replies 3 tokens longer</dd>" in html
    assert "311" not in html


def test_what_people_and_models_wrote_is_only_ever_text(workspace: Workspace):
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    with guest(workspace, "finetuning") as client:
        with workspace.database.write() as session:
            run_id = runs.queue(
                session, stage="sample", inputs={"model": evil}, config={"knob": evil}, seed=1
            )
        for page in ("/runs", f"/runs/{run_id}"):
            html = text(client, page)
            assert "<script>alert" not in html
            assert "<img src=x" not in html
            assert "&lt;script&gt;" in html


def test_a_run_that_is_not_there_is_said_in_a_sentence(workspace: Workspace):
    with guest(workspace) as client:
        reply = client.get("/runs/finetune-2026-01-01-abcd")
        page = client.get("/runs/finetune-2026-01-01-abcd", headers={"accept": "text/html"})

    assert reply.status_code == page.status_code == 404
    assert "There is no run" in reply.json()["error"]
    assert "There is no run" in page.text


def test_a_bug_is_said_plainly_and_shows_no_traceback(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    def broken(_: object) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(runs, "list_runs", broken)
    app = create_app(workspace, engine(), "t")
    with TestClient(app, base_url="http://127.0.0.1:8765", raise_server_exceptions=False) as client:
        client.get("/start?token=t")
        reply = client.get("/runs", headers={"accept": "text/html"})

    assert reply.status_code == 500
    assert "secret detail" not in reply.text


def test_a_page_that_waits_hears_when_the_loop_moves_on(workspace: Workspace):
    with guest(workspace, "judged") as client:
        seen = client.get("/").text.partition("/pulse?seen=")[2].partition('"')[0]
        before = client.get("/pulse", params={"seen": seen})
        client.post("/judge/improve")
        after = client.get("/pulse", params={"seen": seen})

    assert (before.status_code, after.status_code) == (204, 204)
    assert "hx-refresh" not in before.headers
    assert after.headers["hx-refresh"] == "true"


def put_reward_model(workspace: Workspace) -> str:
    entry = ModelEntry(
        name=f"{BASE}-reward",
        sha256="5" * 64,
        kind="reward",
        chat_form="gemma",
        licence="CC0-1.0",
        origin=f"trained here from {V1}",
        folder=f"library/{BASE}-reward",
        parent=V1,
        base=BASE,
        info={"accuracy": "75 % (30 to 95)"},
    )
    with workspace.database.write() as session:
        return library.add_model(session, entry).name


def test_a_reward_model_stands_in_the_family_and_nowhere_to_talk_to(workspace: Workspace):
    with guest(workspace, "done") as client:
        name = put_reward_model(workspace)
        family = text(client, "/models")
        assert f'id="{name}"' in family
        assert "75 % (30 to 95) of the choices held out" in family
        assert f"export {name}" not in family
        assert "2 versions that answer" in family
        for page in ("/chat", "/report"):
            assert name not in text(client, page), page
        refused = client.post("/report/compare", data={"models": [BASE, name]})
    assert refused.status_code == 400
    assert "is a reward model: it scores replies" in refused.text

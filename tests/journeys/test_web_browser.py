"""The pages in Chromium: chat, pairs by keys, a lost answer, both colour schemes, a phone."""

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, Route, sync_playwright
from sqlalchemy import select
from tests.journeys.seed import Stage
from tests.journeys.texts import BASE, V1
from tests.journeys.web import CHROMIUM, CHROMIUM_ARGUMENTS, TOKEN, served

from amenable.apps.serve.app import create_app
from amenable.feedback.export import comparisons, mended_demonstrations
from amenable.generation.engine import Engine, Request, ScriptedEngine, never
from amenable.generation.remote import RemoteEngine
from amenable.pipeline.config import FinetuneConfig
from amenable.pipeline.supervise import free_port
from amenable.records.sample import ModelRef, Sample
from amenable.store import runs
from amenable.store.tables import SampleRow
from amenable.store.workspace import Workspace

pytestmark = pytest.mark.browser
FORGET_LINKS = "DELETE FROM settings WHERE key LIKE 'launch:%'"  # so that one token opens it again
ROOMS = (
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


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    if not CHROMIUM.exists():
        if "browser" in os.environ.get("AMENABLE_REQUIRE", ""):
            pytest.fail(f"{CHROMIUM} is not installed, but a browser is required")
        pytest.skip(f"{CHROMIUM} is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


class Visitor:
    """A page that is let in; it notes every complaint of the browser."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: self._note(said.type, said.text))
        page.on("request", lambda request: self._watch(request.url))
        page.goto(f"{address}/start?token={TOKEN}")
        page.wait_for_url(f"{address}/")

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    def _watch(self, url: str) -> None:
        if not url.startswith((self.address, "data:")):
            self.complaints.append(f"asked for {url}")

    def go(self, path: str) -> Page:
        self.page.goto(self.address + path)
        return self.page


def visit(browser: Browser, address: str, **options: object) -> Visitor:
    return Visitor(browser.new_context(**options).new_page(), address)  # pyright: ignore[reportArgumentType]


def test_a_person_chats_with_both(workspace: Workspace, browser: Browser):
    with served(workspace, "judging") as address:
        visitor = visit(browser, address)
        page = visitor.go("/chat")
        page.fill("#prompt", "Write a short poem about the sea.")
        page.keyboard.press("Enter")
        page.wait_for_selector(".said:nth-child(2) .said-foot:not([hidden])")
        page.wait_for_selector(".said:nth-child(1) .said-foot:not([hidden])")
        left, right = page.locator(".said").all()
        assert "base" in (left.get_attribute("class") or "")
        assert "instruct" in (right.get_attribute("class") or "")
        assert "Salt on the wind" in right.locator(".reply").inner_text()
        right.locator("[data-thumb=up]").click()
        page.wait_for_selector("[data-thumb=up][aria-pressed=true]")
        page.click("[data-see]")
        page.wait_for_selector(".token.structure")
        page.check("[data-raw-switch]")
        assert right.locator(".reply-raw").is_visible()
        assert visitor.complaints == []


class Shelf:
    """The models of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def listed(self) -> Sequence[ModelRef]:
        return self._engine.models()

    def engine_of(self, name: str) -> Engine:
        return self._engine


@contextmanager
def serving(engine: Engine) -> Generator[RemoteEngine]:
    """An engine as the pages have it in life: behind the address that serves it."""
    port = free_port()
    app = create_app(Shelf(engine), None)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        with closing(RemoteEngine(f"http://127.0.0.1:{port}", patience=20)) as remote:
            yield remote
    finally:
        server.should_exit = True
        thread.join(timeout=10)


def test_what_each_model_sees_follows_its_own_conversation(workspace: Workspace, browser: Browser):
    speaks = ScriptedEngine({BASE: ["More of the same."], V1: ["Another thing."]})
    with serving(speaks) as engine, served(workspace, "judging", engine) as address:
        visitor = visit(browser, address)
        page = visitor.go("/chat")
        page.fill("#prompt", "Hello there")
        page.click("[data-see]")
        page.wait_for_selector(".token:has-text('Hello')")
        page.press("#prompt", "Enter")
        page.wait_for_selector(".tokens:has-text('Another')")
        seen = page.locator(".tokens").all_inner_texts()
        assert [("same" in each, "Another" in each) for each in seen] == [
            (True, False),
            (False, True),
        ]
        assert visitor.complaints == []


class PatientEngine(ScriptedEngine):
    """Speaks its first word, then waits until nobody listens any more."""

    def __init__(self) -> None:
        super().__init__({V1: ["one two three"], BASE: ["one two three"]})
        self.num_cancelled = 0

    def stream(
        self, request: Request, is_cancelled: Callable[[], bool] = never
    ) -> Iterator[str | Sample]:
        def waits() -> bool:
            until = time.monotonic() + 20
            while not is_cancelled() and time.monotonic() < until:
                threading.Event().wait(0.02)
            self.num_cancelled += is_cancelled()
            return is_cancelled()

        first, *_ = super().stream(request)
        yield first
        yield from super().stream(request, waits)


def test_stop_ends_the_engines_work_and_keeps_what_was_said(workspace: Workspace, browser: Browser):
    engine = PatientEngine()
    with served(workspace, "judging", engine) as address:
        page = visit(browser, address).go("/chat")
        page.fill("#prompt", "Count.")
        page.keyboard.press("Enter")
        page.wait_for_selector(".said:nth-child(2) .reply:text('one')")
        page.click("[data-stop]")
        page.wait_for_selector("[data-send]:not([hidden])")
        feet = page.locator(".said-foot:visible")
        assert feet.all_inner_texts() == ["stopped by you", "stopped by you"]
        query = select(SampleRow.stop_reason).where(SampleRow.prompt_key == "chat")
        until = time.monotonic() + 15
        reasons: list[str] = []
        while len(reasons) < 2 and time.monotonic() < until:
            with workspace.database.read() as session:
                reasons = list(session.scalars(query))

    assert reasons == ["cancelled", "cancelled"]
    assert engine.num_cancelled == 2


def choose(page: Page, key: str) -> None:
    task = page.get_attribute("[data-pair]", "data-task")
    page.keyboard.press(key)
    page.wait_for_selector(f"[data-room]:not(:has([data-task='{task}']))")


def test_a_person_judges_by_keys_mends_one_and_presses_improve(
    workspace: Workspace, browser: Browser
):
    with served(workspace, "judging") as address:
        visitor = visit(browser, address)
        page = visitor.go("/judge")
        for key in "120210":
            choose(page, key)
        page.keyboard.press("u")
        page.wait_for_selector("[data-done]:text('18')")
        choose(page, "1")
        page.keyboard.press("s")
        choose(page, "2")
        page.keyboard.press("x")
        page.keyboard.press("1")
        page.fill("textarea[name=mended]", "A reply as it should be.")
        choose(page, "Control+Enter")
        page.wait_for_selector("[data-improve]:not([hidden])")
        page.click("[data-improve] button")
        page.wait_for_url("**/runs/align-*")
        assert visitor.complaints == []

    with workspace.database.read() as session:
        assert len(comparisons(session, "improve")) == 20
        assert len(mended_demonstrations(session)) == 1


def test_an_answer_that_does_not_arrive_is_sent_again_and_kept_once(
    workspace: Workspace, browser: Browser
):
    with served(workspace, "judging") as address:
        visitor = visit(browser, address)
        page = visitor.go("/judge")
        failures = iter((1, 2))

        def lose(route: object) -> None:
            # The first time the answer is lost on its way, the second time only its receipt.
            count = next(failures, 0)
            if count == 2:
                route.fetch()  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
            route.abort() if count else route.continue_()  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]

        page.route("**/judge/submissions", lose)
        page.keyboard.press("1")
        page.wait_for_selector("[data-done]:text('14')", timeout=15_000)

    with workspace.database.read() as session:
        assert len(comparisons(session, "improve")) == 14


def num_judged(workspace: Workspace) -> int:
    with workspace.database.read() as session:
        return len(comparisons(session, "improve"))


def enter(page: Page, address: str) -> None:
    page.goto(f"{address}/start?token={TOKEN}")
    page.wait_for_url(f"{address}/")


def test_an_answer_waits_for_its_own_workspace(
    workspace: Workspace, browser: Browser, tmp_path: Path
):
    """Two workspaces, one after the other at the same address, in the same browser."""
    port = free_port()
    with Workspace.open(tmp_path / "other") as other:
        with served(workspace, "judging", port=port) as address:
            visitor = visit(browser, address)
            left_open = visitor.go("/judge")
            left_open.route("**/judge/submissions", lambda route: route.abort())
            left_open.keyboard.press("1")
            left_open.wait_for_selector("[data-lost]:has-text('does not answer')")
        with served(other, "judging", port=port):
            later = left_open.context.new_page()
            enter(later, address)
            posted: list[str] = []
            later.on("request", lambda request: posted.append(request.url))
            later.goto(f"{address}/judge")
            later.wait_for_load_state("networkidle")
            assert not [url for url in posted if url.endswith("/submissions")]
            # The page that was left open goes on sending, to whoever listens there now.
            left_open.unroute("**/judge/submissions")
            left_open.wait_for_selector("[data-lost]:has-text('Another workspace is open')")
            left_open.close()
        assert (num_judged(workspace), num_judged(other)) == (13, 13)
        with served(workspace, "new", port=port):
            with workspace.database.write() as session:
                session.connection().exec_driver_sql(FORGET_LINKS)
            enter(later, address)
            later.goto(f"{address}/judge")
            later.wait_for_selector("[data-done]:text('14')")
        assert (num_judged(workspace), num_judged(other)) == (14, 13)


def test_another_tab_delivers_an_answer_once(workspace: Workspace, browser: Browser):
    with served(workspace, "judging") as address:
        first = visit(browser, address).go("/judge")
        first.route("**/judge/submissions", lambda route: route.abort())
        first.keyboard.press("1")
        first.wait_for_selector("[data-lost]:has-text('does not answer')")
        second = first.context.new_page()
        second.goto(f"{address}/judge")
        second.wait_for_selector("[data-done]:text('14')")
        first.wait_for_selector("[data-done]:text('14')", timeout=15_000)
        assert first.get_attribute("[data-pair]", "data-task") == second.get_attribute(
            "[data-pair]", "data-task"
        )

    assert num_judged(workspace) == 14


def refuse(page: Page, status: int, error: str) -> list[Route]:
    """Answer every submission so; gives the list of those that came."""
    came: list[Route] = []

    def answer(route: Route) -> None:
        came.append(route)
        route.fulfill(status=status, json={"error": error})

    page.route("**/judge/submissions", answer)
    return came


def test_trouble_of_the_server_is_said_in_its_words_and_the_answer_waits(
    workspace: Workspace, browser: Browser
):
    full = "The disk is full: nothing was kept. Free some room, then repeat."
    with served(workspace, "judging") as address:
        page = visit(browser, address).go("/judge")
        came = refuse(page, 503, full)
        page.keyboard.press("1")
        page.wait_for_selector(f"[data-lost]:has-text('{full} Trying again')")
        page.wait_for_selector("[data-again]:not([hidden])", timeout=20_000)
        assert "does not answer" not in page.inner_text("[data-lost]")
        num_tried = len(came)
        page.keyboard.press("2")  # one pair, one answer: the first has to be settled
        page.wait_for_selector("#notices:has-text('try again, or discard')")
        page.reload()
        page.wait_for_selector(f"[data-lost]:has-text('{full} Your answer waits')")
        assert len(came) == num_tried + 1  # one more try at each load, no more
        assert num_judged(workspace) == 13
        page.unroute("**/judge/submissions")
        page.click("[data-again]")
        page.wait_for_selector("[data-done]:text('14')")
        assert page.locator("[data-lost]").is_hidden()

    with workspace.database.read() as session:
        assert comparisons(session, "improve")[-1].choice == "left"


def test_a_refused_answer_is_sent_once_and_can_be_discarded(workspace: Workspace, browser: Browser):
    with served(workspace, "judging") as address:
        page = visit(browser, address).go("/judge")
        task = page.get_attribute("[data-pair]", "data-task")
        came = refuse(page, 403, "This request came from another page, so nothing was done.")
        page.keyboard.press("1")
        page.wait_for_selector("[data-lost]:has-text('came from another page')")
        page.click("[data-discard]")
        page.wait_for_selector("[data-pair].arriving")
        assert page.locator("[data-lost]").is_hidden()
        assert len(came) == 1
        assert page.get_attribute("[data-pair]", "data-task") == task
        page.unroute("**/judge/submissions")
        choose(page, "2")

    with workspace.database.read() as session:
        assert comparisons(session, "improve")[-1].choice == "right"
    assert num_judged(workspace) == 14


def test_u_pressed_twice_quickly_takes_back_one_answer(workspace: Workspace, browser: Browser):
    with served(workspace, "judging") as address:
        page = visit(browser, address).go("/judge")
        held: list[Route] = []
        page.route("**/judge/undo", lambda route: held.append(route))  # noqa: PLW0108 - a builtin is not taken
        with page.expect_request("**/judge/undo"):
            page.keyboard.press("u")
        page.keyboard.press("u")
        page.keyboard.press("1")  # nor is a pair judged that is about to go
        for route in held:
            route.continue_()
        page.wait_for_selector("[data-done]:text('12')")
        assert len(held) == 1

    assert num_judged(workspace) == 12


def test_a_mended_text_survives_a_reload(workspace: Workspace, browser: Browser):
    with served(workspace, "judging") as address:
        visitor = visit(browser, address)
        page = visitor.go("/judge")
        page.keyboard.press("x")
        page.keyboard.press("2")
        page.fill("textarea[name=mended]", "Half a thought")
        page.reload()
        page.keyboard.press("x")
        assert page.input_value("textarea[name=mended]") == "Half a thought"


@pytest.mark.parametrize(
    ("stage", "scheme", "width"),
    [
        ("new", "light", 390),
        ("finetuning", "dark", 390),
        ("finetuning", "light", 1280),
        ("simulated", "light", 390),
        ("simulated", "dark", 1280),
    ],
)
def test_every_page_fits_its_screen_and_the_browser_has_no_complaint(
    workspace: Workspace, browser: Browser, stage: Stage, scheme: str, width: int
):
    with served(workspace, stage) as address:
        size = {"width": width, "height": 800}
        visitor = visit(browser, address, viewport=size, color_scheme=scheme)
        for path in ROOMS:
            page = visitor.go(path)
            page.wait_for_load_state("networkidle")
            over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert over <= 0, path
        assert visitor.complaints == []


def test_a_person_trains_by_hand_with_keys_alone_and_without_script(
    workspace: Workspace, browser: Browser
):
    with served(workspace, "judged") as address:
        context = browser.new_context()
        state = Visitor(context.new_page(), address).page.context.storage_state()
        plain = browser.new_context(storage_state=state, java_script_enabled=False)
        page = plain.new_page()
        page.goto(f"{address}/train/finetune")
        page.focus("#config-fit-num_epochs")
        page.keyboard.press("Control+A")
        page.keyboard.type("0")
        page.keyboard.press("Enter")
        page.wait_for_selector("[role=alert]:focus")  # what is wrong is read out first
        assert page.input_value("#config-fit-num_epochs") == "0"
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # the mistake's own link
        page.fill("#config-fit-num_epochs", "2")
        page.click("summary:text('How long and how fast')")
        page.fill("#config-fit-warmup_share", "0.5")
        page.keyboard.press("Enter")
        page.wait_for_url("**/runs/finetune-*")

    with workspace.database.read() as session:
        (run,) = runs.list_runs(session, statuses=("queued",))
    fit = FinetuneConfig().fit
    assert run.config["fit"] == asdict(replace(fit, num_epochs=2, warmup_share=0.5))


def test_hostile_replies_run_nothing(workspace: Workspace, browser: Browser):
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script> [x](javascript:alert(3))"
    with served(workspace, "judging") as address:
        visitor = visit(browser, address)
        visitor.page.on("dialog", lambda dialog: visitor.complaints.append(dialog.message))
        page = visitor.go("/chat")
        page.fill("#prompt", evil)
        page.keyboard.press("Enter")
        page.wait_for_selector(".said-foot:not([hidden])")
        page.click("[data-see]")
        page.wait_for_selector(".token.structure")
        assert page.locator(".exchanges img, .sees img, .exchanges a").count() == 0
        assert visitor.complaints == []

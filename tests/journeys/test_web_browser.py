"""The pages in Chromium: chat, pairs by keys, a lost answer, both colour schemes, a phone."""

import os
import threading
import time
from collections.abc import Callable, Generator, Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from sqlalchemy import select
from tests.journeys.seed import Stage
from tests.journeys.texts import BASE, V1
from tests.journeys.web import CHROMIUM, CHROMIUM_ARGUMENTS, TOKEN, served

from amenable.feedback.export import comparisons, mended_demonstrations
from amenable.generation.engine import Request, ScriptedEngine, never
from amenable.records.sample import Sample
from amenable.store.tables import SampleRow
from amenable.store.workspace import Workspace

pytestmark = pytest.mark.browser
ROOMS = ("/", "/chat", "/judge", "/data", "/models", "/runs", "/report")


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

"""amenable start as a person has it: its own processes, a tiny model, a browser, to the report."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from queue import Empty, Queue

import pytest
from playwright.sync_api import Browser, Page
from sqlalchemy import func, select
from tests.journeys.test_headless import small
from tests.journeys.test_web_browser import browser, choose

from amenable.feedback.export import mended_demonstrations
from amenable.pipeline.supervise import free_port
from amenable.store import library
from amenable.store.tables import JudgementRow
from amenable.store.workspace import Workspace

__all__ = ["browser"]  # the fixture, used here too
pytestmark = pytest.mark.browser
STEP_MS = 180_000


@pytest.fixture
def address(tmp_path: Path) -> Generator[tuple[Path, str]]:
    """The workspace's folder and the one-time link that the terminal printed."""
    folder = tmp_path / "workspace"
    with Workspace.open(folder) as workspace:
        small(workspace)
    command = [sys.executable, "-m", "amenable.apps.cli.main", "start", "--base", "tiny"]
    process = subprocess.Popen(
        [*command, "--workspace", str(folder), "--port", str(free_port())],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    said: Queue[str] = Queue()
    stdout = process.stdout
    assert stdout is not None
    listener = threading.Thread(target=lambda: [said.put(line) for line in stdout])
    listener.start()
    try:
        yield folder, _link(said)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        listener.join()
        stdout.close()


def _link(said: Queue[str]) -> str:
    heard: list[str] = []
    try:
        while True:
            heard.append(said.get(timeout=60))
            if found := re.search(r"http://\S+/start\?token=\S+", heard[-1]):
                return found.group()
    except Empty:
        pytest.fail("no address was printed:\n" + "".join(heard))


def test_a_person_goes_from_the_link_to_the_report(address: tuple[Path, str], browser: Browser):
    folder, link = address
    page = browser.new_page()
    page.set_default_timeout(STEP_MS)
    page.goto(link)
    home = link.split("/start")[0]
    page.wait_for_url(f"{home}/")

    _reload_until(page, f"{home}/judge", "[data-pair]")
    _chat(page, home)
    _judge_twenty(page, home)
    page.click("[data-improve] button")
    page.wait_for_url("**/runs/align-*")
    _reload_until(page, f"{home}/judge?purpose=proof", "[data-pair]")
    choose(page, "1")
    _reload_until(page, f"{home}/report", "text=tiny-instruct-2")
    page.goto(f"{home}/models")
    page.wait_for_selector("text=tiny-instruct-2")
    page.context.close()

    with Workspace.open(folder) as workspace, workspace.database.read() as session:
        names = {row.name for row in library.models(session)}
        judged = session.scalar(select(func.count(JudgementRow.id)))
        assert len(mended_demonstrations(session)) == 1
    assert names == {"tiny", "tiny-instruct-1", "tiny-instruct-2"}
    assert judged == 21


def _reload_until(page: Page, url: str, selector: str) -> None:
    """A stage is at work: look again every second, as a person would."""
    for _ in range(STEP_MS // 1000):
        page.goto(url)
        if page.locator(selector).count():
            return
        page.wait_for_timeout(1000)
    pytest.fail(f"{url} never showed {selector}")


def _chat(page: Page, home: str) -> None:
    page.goto(f"{home}/chat")
    page.fill("#prompt", "Write a short poem about the sea.")
    page.keyboard.press("Enter")
    for side in (1, 2):
        page.wait_for_selector(f".said:nth-child({side}) .said-foot:not([hidden])")


def _judge_twenty(page: Page, home: str) -> None:
    page.goto(f"{home}/judge")
    for key in "1202101201201201212":
        choose(page, key)
    page.keyboard.press("x")
    page.keyboard.press("1")
    page.fill("textarea[name=mended]", "A reply as it should be.")
    choose(page, "Control+Enter")
    page.wait_for_selector("[data-improve]:not([hidden])")

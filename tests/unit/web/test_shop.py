"""A page is answered for the workspace it came from, and for no other at the same address."""

import re
import shutil
from pathlib import Path

from starlette.testclient import TestClient
from tests.journeys.web import TOKEN, guest, stranger

from amenable.store.workspace import Workspace


def id_in(client: TestClient) -> str:
    found = re.search(r'data-workspace="([0-9a-f]{16})"', client.get("/judge").text)
    assert found
    return found[1]


def id_of(folder: Path) -> str:
    """As a fresh start of the pages on this folder would give it."""
    with Workspace.open(folder) as workspace, stranger(workspace) as client:
        assert client.get("/start", params={"token": TOKEN}).status_code == 200
        return id_in(client)


def test_a_workspace_keeps_its_id_and_a_copy_or_a_new_one_has_another(tmp_path: Path):
    first, copy = tmp_path / "first", tmp_path / "copy"
    with Workspace.open(first) as workspace, guest(workspace, "judging") as client:
        kept = id_in(client)
        assert id_in(client) == kept
    shutil.copytree(first, copy)
    with Workspace.open(copy) as workspace, workspace.database.write() as session:
        session.connection().exec_driver_sql("DELETE FROM settings WHERE key LIKE 'launch:%'")
    other = id_of(copy)
    shutil.rmtree(first)
    new = id_of(first)

    assert len({kept, other, new}) == 3


def test_an_answer_from_a_page_of_another_workspace_is_refused(workspace: Workspace):
    with guest(workspace, "judging") as client:
        body = {"purpose": "improve"}
        here, elsewhere = id_in(client), "0" * 16
        refused = client.post("/judge/undo", json=body, headers={"x-amenable-workspace": elsewhere})
        taken = client.post("/judge/next", json=body, headers={"x-amenable-workspace": here})

    assert refused.status_code == 412
    assert "another workspace" in refused.json()["error"]
    assert (taken.status_code, taken.json()["done"]) == (200, 13)

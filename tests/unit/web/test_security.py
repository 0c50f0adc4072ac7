"""Nothing is answered to strangers, other pages or unknown hosts; headers stand on everything."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute
from starlette.testclient import TestClient
from tests.journeys.seed import engine
from tests.journeys.web import ORIGIN, TOKEN, guest, stranger

from amenable.apps.web import security
from amenable.apps.web.app import create_app
from amenable.store.workspace import Workspace

OPEN = {"/health", "/start"}


def paths_of(routes: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    for route in routes:
        if isinstance(route, APIRoute):
            path = route.path.replace("{run_id}", "finetune-2026-01-01-abcd")
            yield from ((method, path) for method in sorted(route.methods or ()))


def closed_routes(app: FastAPI) -> list[tuple[str, str]]:
    found = [each for each in paths_of(all_routes(app)) if each[1] not in OPEN]
    assert len(found) > 20
    return found


def all_routes(app: FastAPI) -> list[BaseRoute]:
    found: list[BaseRoute] = []
    for route in app.routes:
        inner = getattr(route, "original_router", None)
        found += list(inner.routes) if inner is not None else [route]
    return found


def app_of(client: TestClient) -> FastAPI:
    app = client.app
    assert isinstance(app, FastAPI)
    return app


def test_every_route_but_the_open_ones_is_closed_to_strangers(workspace: Workspace):
    with stranger(workspace) as client:
        for method, path in closed_routes(app_of(client)):
            reply = client.request(method, path, headers={"origin": ORIGIN})
            assert reply.status_code == 401, (method, path)


def test_unknown_paths_tell_a_stranger_nothing(workspace: Workspace):
    with stranger(workspace) as client:
        for path in ("/openapi.json", "/docs", "/nothing", "//static/../", "/Static/x", "/chat/"):
            assert client.get(path).status_code == 401


def test_a_stranger_in_a_browser_is_told_where_the_door_is(workspace: Workspace):
    with stranger(workspace) as client:
        reply = client.get("/", headers={"accept": "text/html"})

    assert reply.status_code == 401
    assert "one-time link" in reply.text


def test_the_open_paths_answer_anybody(workspace: Workspace):
    with stranger(workspace) as client:
        assert client.get("/health").json() == {"status": "ready"}
        assert client.get("/static/css/tokens.css").status_code == 200
        assert client.get("/static/..%2f..%2fapp.py").status_code == 404


def test_the_launch_token_opens_the_door_once(workspace: Workspace):
    with stranger(workspace) as first:
        assert first.get("/start", params={"token": TOKEN}).status_code == 200
        assert first.get("/").status_code == 200
        cookie = first.cookies
        assert first.get("/start", params={"token": TOKEN}).status_code == 200  # already inside
    with stranger(workspace) as second:
        assert second.get("/start", params={"token": TOKEN}).status_code == 401
        second.cookies = cookie
        assert second.get("/").status_code == 200  # a restart logs nobody out


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x", TOKEN[:-1], "é"])
def test_a_wrong_token_opens_nothing(workspace: Workspace, token: str):
    with stranger(workspace) as client:
        assert client.get("/start", params={"token": token}).status_code == 401
        assert client.get("/").status_code == 401


def test_without_a_launch_token_the_door_stays_shut(workspace: Workspace):
    app = create_app(workspace, engine(), "")
    with TestClient(app, base_url=ORIGIN) as client:
        assert client.get("/start", params={"token": ""}).status_code == 401


def test_the_session_cookie_is_for_this_site_alone(workspace: Workspace):
    with stranger(workspace) as client:
        cookie = client.get("/start", params={"token": TOKEN}).headers["set-cookie"].lower()

    assert cookie.startswith("amenable-8765=")
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_a_cookie_that_was_changed_opens_nothing(workspace: Workspace):
    with guest(workspace) as client:
        value = client.cookies["amenable-8765"]
        name, signature = value.split(".")
        for forged in (name, f"{name}.", f"{name}.{'0' * 64}", f"x{name}.{signature}", "é.é"):
            headers = {b"cookie": f"amenable-8765={forged}".encode()}
            client.cookies.clear()
            assert client.get("/", headers=headers).status_code == 401, forged


def test_an_old_session_has_ended(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(security, "SESSION_LASTS", -security.SESSION_LASTS)
    with stranger(workspace) as client:
        client.get("/start", params={"token": TOKEN})
        value = client.cookies.get("amenable-8765") or ""
        assert client.get("/", headers={"cookie": f"amenable-8765={value}"}).status_code == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "", "[::2]", "a@b", "[bad"]
)
def test_other_hosts_are_not_answered(workspace: Workspace, host: str):
    with guest(workspace) as client:
        for path in ("/", "/health", "/static/css/tokens.css"):
            assert client.get(path, headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost:8765", "[::1]:8765", "LOCALHOST"])
def test_names_of_this_machine_are_answered(workspace: Workspace, host: str):
    with stranger(workspace) as client:
        assert client.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["", "null", "http://evil.example", "https://127.0.0.1:8765", "http://127.0.0.1:1"]
)
def test_other_origins_change_nothing(workspace: Workspace, origin: str):
    with guest(workspace) as client:
        for method, path in closed_routes(app_of(client)):
            if method == "POST":
                reply = client.request(method, path, headers={"origin": origin})
                assert reply.status_code == 403, path


def test_headers_stand_on_every_answer(workspace: Workspace):
    with guest(workspace, "done") as client:
        paths = ["/", "/health", "/nothing", "/static/js/shell.js", "/runs/none-1", "/chat"]
        replies = [client.get(path) for path in paths]
        replies.append(client.get("/", headers={"host": "evil.example"}))
        replies.append(client.post("/judge/undo", json={}, headers={"origin": "null"}))
        replies.append(client.post("/judge/undo", json={"purpose": "improve", "extra": 1}))
    for reply in replies:
        policy = reply.headers["content-security-policy"]
        assert policy == security.CONTENT_SECURITY_POLICY
        assert "unsafe" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "same-origin"


def test_the_report_file_can_run_nothing_and_reach_nothing(workspace: Workspace):
    with guest(workspace, "done") as client:
        reply = client.get("/report/file")

    policy = reply.headers["content-security-policy"]
    assert reply.status_code == 200
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script-src" not in policy


def test_no_page_carries_script_or_style_in_its_text(workspace: Workspace):
    with guest(workspace, "simulated") as client:
        for path in ("/", "/chat", "/judge", "/data", "/models", "/runs", "/report"):
            html = client.get(path).text
            assert "<style" not in html
            assert " style=" not in html
            assert " onclick=" not in html
            assert html.count("<script") == html.count("<script src=")
            assert "//" not in html.replace("http://www.w3.org", "").partition("<main")[0]


def test_a_body_that_is_too_large_is_refused(workspace: Workspace):
    with guest(workspace) as client:
        body = b'{"model": "' + b"a" * security.MAX_BODY_BYTES + b'"}'
        headers = {"content-type": "application/json"}
        assert client.post("/chat/replies", content=body, headers=headers).status_code == 413


def test_every_field_that_a_request_may_hold_is_bounded(workspace: Workspace):
    app = create_app(workspace, engine(), TOKEN)
    app.openapi_url = "/openapi.json"
    unbounded = sorted(set(_unbounded(app.openapi(), "")))

    assert unbounded == []


def _unbounded(schema: object, path: str) -> Iterator[str]:
    """Strings, numbers and lists without a limit, in what a request may hold."""
    if isinstance(schema, list):
        for position, item in enumerate(schema):
            yield from _unbounded(item, f"{path}/{position}")
        return
    if not isinstance(schema, dict):
        return
    if "responses" in schema:
        schema = {key: value for key, value in schema.items() if key != "responses"}
    limits = {
        "string": ("maxLength", "pattern", "enum", "const", "contentMediaType"),
        "integer": ("maximum", "exclusiveMaximum"),
        "number": ("maximum", "exclusiveMaximum"),
        "array": ("maxItems",),
    }
    kind = schema.get("type")
    if isinstance(kind, str) and kind in limits and not any(key in schema for key in limits[kind]):
        yield path
    for key, value in schema.items():
        if key not in ("HTTPValidationError", "ValidationError"):
            yield from _unbounded(value, f"{path}/{key}")

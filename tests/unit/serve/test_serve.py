"""The OpenAI-compatible address over a real socket, with OpenAI's own client and with rude ones."""

import http.client
import json
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import openai
import pytest
import uvicorn

from amenable.apps.serve.app import create_app
from amenable.generation.engine import Request, ScriptedEngine, TokenPiece, never
from amenable.generation.remote import RemoteEngine
from amenable.pipeline.supervise import free_port
from amenable.records.conversation import Conversation
from amenable.records.errors import ModelError, NotFoundError
from amenable.records.sample import ModelRef, Sample, SamplingSettings

KEY = "a key of letters"
POEM = "The sea is wide, the sea is deep."
SCRIPT = ScriptedEngine({"poet": [POEM, "Another one."], "echo": ["Hello there."]})
ASK = {"model": "poet", "messages": [{"role": "user", "content": "A poem, please."}]}


class Endless:
    """Speaks until it is cancelled, or for `patience` words; counts both."""

    def __init__(self) -> None:
        self.num_words = 0
        self.ended = threading.Event()
        self.is_faulty = False

    def models(self) -> list[ModelRef]:
        return [ModelRef("endless", "1" * 64)]

    def tokens(self, model: str, prompt: Conversation) -> list[TokenPiece]:
        return [TokenPiece(1, prompt.last_user_text(), is_structure=False)]

    def generate(
        self, requests: Sequence[Request], on_sample: Callable[[int, Sample], None] | None = None
    ) -> list[Sample]:
        raise NotImplementedError

    def stream(
        self, request: Request, is_cancelled: Callable[[], bool] = never
    ) -> Iterator[str | Sample]:
        pause = threading.Event()
        try:
            while not is_cancelled():
                self.num_words += 1
                yield "word "
                if self.is_faulty and self.num_words == 3:
                    raise ZeroDivisionError("a bug")
                pause.wait(0.01)  # as long as a step of a small model
        finally:
            self.ended.set()


class Shelf:
    """Models from two engines, looked up by name."""

    def __init__(self, *engines: Any) -> None:
        self._engines = engines

    def listed(self) -> list[ModelRef]:
        return [ref for engine in self._engines for ref in engine.models()]

    def engine_of(self, name: str) -> Any:
        for engine in self._engines:
            if any(ref.name == name for ref in engine.models()):
                return engine
        raise NotFoundError("model", name, known=[ref.name for ref in self.listed()])


@contextmanager
def served(*engines: Any, secret: str | None = KEY, port: int = 0) -> Generator[str]:
    """A server of our own on a port of the loopback, 0 for a free one; its address."""
    door = socket.socket()
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    door.bind(("127.0.0.1", port))
    door.listen()  # who calls before the server is up waits
    config = uvicorn.Config(create_app(Shelf(*engines), secret), log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        door.close()


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    with served(SCRIPT) as url:
        yield url


@pytest.fixture
def client(address: str) -> Generator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def raw(address: str) -> Generator[httpx2.Client]:
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx2.Client(base_url=address, headers=headers) as client:
        yield client


def test_openais_client_lists_the_models(client: openai.OpenAI):
    assert [model.id for model in client.models.list()] == ["poet", "echo"]


def test_openais_client_gets_a_reply_with_its_provenance(client: openai.OpenAI):
    reply = client.chat.completions.create(
        model="poet", messages=[{"role": "user", "content": "Hi"}], seed=0, temperature=0.5
    )
    assert reply.choices[0].message.content == POEM
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 8
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + 8
    ours: Any = reply.model_extra
    assert ours["amenable"]["seed"] == 0
    assert ours["amenable"]["model_sha256"] == "0" * 64
    assert ours["amenable"]["settings"]["temperature"] == 0.5
    assert ours["amenable"]["stop_reason"] == "stop"


def test_openais_client_streams(client: openai.OpenAI):
    stream = client.chat.completions.create(
        model="poet", messages=[{"role": "user", "content": "Hi"}], seed=0, stream=True
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == POEM
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == "stop"
    last: Any = chunks[-1].model_extra
    assert last["amenable"]["num_tokens"] == 8


def test_openais_client_may_ask_for_one_stop_text_or_several(client: openai.OpenAI):
    for stop in (".", [".", "!"]):
        reply = client.chat.completions.create(
            model="poet", messages=[{"role": "user", "content": "Hi"}], stop=stop
        )
        settings: Any = (reply.model_extra or {})["amenable"]["settings"]
        assert settings["stop"] == ([stop] if isinstance(stop, str) else stop)


def test_a_limit_is_told_as_such(client: openai.OpenAI):
    reply = client.chat.completions.create(
        model="poet", messages=[{"role": "user", "content": "Hi"}], max_tokens=3, seed=0
    )
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == (
        "The sea is",
        "length",
    )


@pytest.mark.parametrize("key", ["", "wrong", KEY + "x", "ключ"])
def test_a_wrong_key_opens_nothing(address: str, key: str):
    headers = {b"Authorization": f"Bearer {key}".encode()} if key else {}
    with httpx2.Client(base_url=address, headers=headers) as stranger:
        found = [
            stranger.get("/v1/models"),
            stranger.post("/v1/chat/completions", json=ASK),
            stranger.post("/v1/amenable/tokens", json=ASK),
        ]
        assert [answer.status_code for answer in found] == [401, 401, 401]
        assert all("key" in answer.json()["error"]["message"] for answer in found)
        assert stranger.get("/health").json() == {"status": "ok"}


def test_openais_client_names_a_wrong_key(address: str):
    with (
        openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError, match="needs its key"),
    ):
        stranger.models.list()


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost:8766", "[::1]:8766", "LOCALHOST"])
def test_without_a_secret_every_route_is_open_to_this_machine(name: str):
    with served(SCRIPT, secret=None) as url:
        assert httpx2.get(f"{url}/v1/models", headers={"host": name}).status_code == 200


@pytest.mark.parametrize("name", ["evil.example", "evil.example:8766", "localhost.evil.example"])
def test_without_a_secret_a_web_page_whose_name_leads_here_reads_nothing(name: str):
    with (
        served(SCRIPT, secret=None) as url,
        httpx2.Client(base_url=url, headers={"host": name}) as page,
    ):
        for answer in (
            page.get("/v1/models"),
            page.post("/v1/chat/completions", json=ASK),
            page.post("/v1/amenable/tokens", json=ASK),
        ):
            check_refusal(answer, 421, "only with a key")


def test_with_a_secret_any_name_will_do(raw: httpx2.Client):
    """A key is asked for where others listen too, by names that are not known here."""
    assert raw.get("/v1/models", headers={"host": "den.home.arpa:8766"}).status_code == 200


USER = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"model": "ghost"}, 404, "There is no model 'ghost'. There are: echo, poet."),
        ({"model": ""}, 422, "model"),
        ({"model": 3}, 422, "model"),
        ({"messages": []}, 422, "messages"),
        ({"messages": "Hi"}, 422, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 422, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 422, "content"),
        ({"messages": [{"role": "user", "content": "x" * 100_001}]}, 422, "content"),
        ({"messages": [USER, USER]}, 400, "turn 2 is by user"),
        ({"messages": [USER, {"role": "assistant", "content": "Hi"}]}, 400, "end with the user"),
        ({"messages": [USER] * 201}, 422, "messages"),
        ({"temperature": -1}, 422, "temperature"),
        ({"temperature": 3}, 422, "temperature"),
        ({"top_p": 0}, 422, "top_p"),
        ({"max_tokens": 0}, 422, "max_tokens"),
        ({"max_tokens": 10**9}, 422, "max_tokens"),
        ({"n": 2}, 422, "n:"),
        ({"seed": -1}, 422, "seed"),
        ({"stop": ["x"] * 9}, 422, "stop"),
        ({"stop": [""]}, 422, "stop"),
        ({"stream": "perhaps"}, 422, "stream"),
    ],
)
def test_bad_requests_have_one_shape(
    raw: httpx2.Client, change: dict[str, Any], status: int, said: str
):
    answer = raw.post("/v1/chat/completions", json=ASK | change)
    check_refusal(answer, status, said)


def check_refusal(answer: httpx2.Response, status: int, said: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.json().keys() == {"error"}
    assert answer.json()["error"].keys() == {"message", "type"}
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"model": "poet", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "poet", "temperature": NaN, "messages": [{"role": "user", "content": "x"}]}',
        b"[" * 100_000,
    ],
)
def test_bodies_that_are_none_have_the_same_shape(raw: httpx2.Client, body: bytes):
    answer = raw.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code in (400, 422), answer.text
    check_refusal(answer, answer.status_code, "")


def test_unknown_addresses_and_methods_have_the_same_shape(raw: httpx2.Client):
    check_refusal(raw.get("/v2/everything"), 404, "Not Found")
    check_refusal(raw.get("/v1/chat/completions"), 405, "Method Not Allowed")


def test_what_a_model_sees_of_a_prompt(raw: httpx2.Client):
    pieces = raw.post("/v1/amenable/tokens", json=ASK).json()["pieces"]
    assert pieces[0] == {"id": 1, "text": "<user>", "is_structure": True}
    assert [piece["text"] for piece in pieces[1:]] == ["A ", "poem, ", "please. "]


def test_what_a_model_sees_once_it_has_replied(raw: httpx2.Client):
    messages = [*ASK["messages"], {"role": "assistant", "content": "The sea."}]
    answer = raw.post("/v1/amenable/tokens", json=ASK | {"messages": messages})
    assert answer.status_code == 200, answer.text
    texts = [piece["text"] for piece in answer.json()["pieces"]]
    assert texts == ["<user>", "A ", "poem, ", "please. ", "<assistant>", "The ", "sea. "]


def test_what_a_model_sees_begins_with_the_user(raw: httpx2.Client):
    messages = [{"role": "assistant", "content": "The sea."}]
    answer = raw.post("/v1/amenable/tokens", json=ASK | {"messages": messages})
    check_refusal(answer, 400, "user speaks next")


def leave_early(address: str, body: dict[str, Any], after: bytes) -> None:
    """Ask, read until something came, and hang up."""
    host, port = address.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    if after:
        response = connection.getresponse()
        while after not in response.readline():
            pass
        response.close()
    connection.close()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_reply(stream: bool):
    engine = Endless()
    body = ASK | {"model": "endless", "stream": stream}
    with served(engine) as url:
        leave_early(url, body, after=b"word" if stream else b"")
        assert engine.ended.wait(20)
        assert engine.num_words < 200  # two seconds at most; left alone it would go on for ever


def test_a_fault_within_a_stream_breaks_it_off_and_does_not_look_like_its_end():
    engine = Endless()
    engine.is_faulty = True
    with served(engine, SCRIPT) as url, closing(RemoteEngine(url, KEY)) as remote:
        with pytest.raises(ModelError):
            list(remote.stream(request("endless")))
        # The address lives on.
        assert remote.generate([request("echo")])[0].reply == "Hello there."


def request(model: str = "poet", **settings: Any) -> Request:
    prompt = Conversation.of(("user", "A poem, please."))
    return Request(prompt=prompt, model=model, settings=SamplingSettings(**settings), seed=1)


@pytest.fixture
def remote(address: str) -> Generator[RemoteEngine]:
    with closing(RemoteEngine(address, KEY)) as engine:
        yield engine


def test_a_remote_engine_is_the_engine_behind_it(remote: RemoteEngine):
    assert remote.generate([request(), request("echo")]) == SCRIPT.generate(
        [request(), request("echo")]
    )
    assert list(remote.stream(request())) == list(SCRIPT.stream(request()))
    assert remote.tokens("poet", request().prompt) == SCRIPT.tokens("poet", request().prompt)
    assert [ref.name for ref in remote.models()] == ["poet", "echo"]


def test_a_remote_engine_waits_for_an_address_that_is_still_starting():
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with closing(RemoteEngine(url, KEY)) as hasty, pytest.raises(ModelError, match="answer"):
        hasty.generate([request("echo")])
    with closing(RemoteEngine(url, KEY, patience=20)) as patient, ThreadPoolExecutor() as pool:
        whole = pool.submit(patient.generate, [request("echo")])
        stream = pool.submit(lambda: list(patient.stream(request("echo"))))
        with served(SCRIPT, port=port):
            assert whole.result(20)[0].reply == "Hello there."
            assert isinstance(stream.result(20)[-1], Sample)


def test_a_remote_stream_can_be_cancelled():
    engine = Endless()
    with served(engine) as url, closing(RemoteEngine(url, KEY)) as remote:
        heard: list[str] = []
        for piece in remote.stream(request("endless"), is_cancelled=lambda: len(heard) >= 3):
            if isinstance(piece, Sample):
                assert piece.stop_reason == "cancelled"
                assert piece.reply == "".join(heard).strip()
            else:
                heard.append(piece)
        assert len(heard) == 3
        assert engine.ended.wait(20)


def test_a_remote_engine_passes_on_what_went_wrong(remote: RemoteEngine, address: str):
    with pytest.raises(NotFoundError, match="ghost"):
        remote.generate([request("ghost")])
    with pytest.raises(NotFoundError, match="ghost"):
        list(remote.stream(request("ghost")))
    with (
        closing(RemoteEngine(address, "wrong")) as stranger,
        pytest.raises(ModelError, match="key"),
    ):
        stranger.models()


def test_nobody_at_the_address_is_said_in_one_line():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with closing(RemoteEngine(url)) as nobody, pytest.raises(ModelError, match="does not answer"):
        nobody.models()


@contextmanager
def saying(body: str, media_type: str = "application/json") -> Generator[RemoteEngine]:
    """Whatever is asked, the address answers this, and that all is well."""

    class Sayer(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(200)
            self.send_header("content-type", media_type)
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = answer

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Sayer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with closing(RemoteEngine(f"http://127.0.0.1:{server.server_port}")) as engine:
                yield engine
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("body", ["<html>Hello</html>", "", "[]", "{}", "null", '{"data": [1]}'])
def test_an_address_that_is_none_of_this_kind_is_said_in_one_line(body: str):
    with saying(body) as engine:
        for ask in (
            engine.models,
            lambda: engine.generate([request()]),
            lambda: engine.tokens("poet", request().prompt),
        ):
            with pytest.raises(ModelError, match="no OpenAI-compatible server"):
                ask()


def test_a_stream_of_something_else_is_said_in_one_line():
    with (
        saying("data: <html>\n\n", "text/event-stream") as engine,
        pytest.raises(ModelError, match="no OpenAI-compatible server"),
    ):
        list(engine.stream(request()))

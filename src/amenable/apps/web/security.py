"""The guard before every page: known hosts, own origin, one door, bounded bodies, headers."""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.cookies import CookieError, SimpleCookie

from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from amenable.apps.hosts import host_of
from amenable.store import settings
from amenable.store.database import Database, GroupWriter

SESSION_LASTS = timedelta(days=14)
MAX_BODY_BYTES = 1 << 20
MAX_UPLOAD_BYTES = 512 << 20
UPLOAD_PATH = "/data/import"
OPEN_PATHS = frozenset({"/health", "/start"})
OPEN_FOLDER = "/static/"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-cache, private",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request goes no further, in words for the person before the screen."""

    status: int
    message: str


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(slots=True)
class Sessions:
    """Who came in by the one-time link; kept in the store, so that a restart logs nobody out."""

    database: Database
    writer: GroupWriter
    secret: str
    launch_token: str
    _known: dict[str, datetime] = field(default_factory=dict[str, datetime])

    def enter(self, token: str) -> str | None:
        """The cookie for a fresh session if `token` is the launch token and was never used."""
        if not self.launch_token or not hmac.compare_digest(
            token.encode(), self.launch_token.encode()
        ):
            return None
        name = secrets.token_urlsafe(32)
        expires_at = datetime.now(UTC) + SESSION_LASTS
        used_key, session_key = f"launch:{_digest(token)}", f"session:{_digest(name)}"

        def admit(session: Session) -> bool:
            if settings.get(session, used_key) is not None:
                return False
            settings.put(session, used_key, datetime.now(UTC).isoformat())
            settings.put(session, session_key, expires_at.isoformat())
            return True

        return f"{name}.{self._signature(name)}" if self.writer.submit(admit) else None

    def is_open(self, cookie: str) -> bool:
        name, _, signature = cookie.partition(".")
        if not name or not hmac.compare_digest(signature.encode(), self._signature(name).encode()):
            return False
        if name not in self._known:
            with self.database.read() as session:
                expires_at = settings.get(session, f"session:{_digest(name)}")
            if not isinstance(expires_at, str):
                return False
            self._known[name] = datetime.fromisoformat(expires_at)
        return datetime.now(UTC) < self._known[name]

    def _signature(self, name: str) -> str:
        return hmac.new(
            self.secret.encode(), b"web session " + name.encode(), hashlib.sha256
        ).hexdigest()


def cookie_of(headers: Headers, name: str) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


class Guard:
    """Everything is refused unless it is named as open or comes with a session."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        sessions: Sessions,
        hosts: frozenset[str],
        cookie: str,
        refuse: Callable[[Scope, Refusal], Response],
    ) -> None:
        self._app = app
        self._sessions = sessions
        self._hosts = hosts
        self._cookie = cookie
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError("there are no websockets here")
        guarded = _with_headers(send)
        refusal = await self._refusal(scope, Headers(scope=scope))
        if refusal:
            await self._refuse(scope, refusal)(scope, receive, guarded)
            return
        limit = MAX_UPLOAD_BYTES if scope["path"] == UPLOAD_PATH else MAX_BODY_BYTES
        await self._app(scope, _with_limit(receive, limit), guarded)

    async def _refusal(self, scope: Scope, headers: Headers) -> Refusal | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or host_of(hosts[0]) not in self._hosts:
            return Refusal(421, "This address is not one that Amenable answers to.")
        if scope["method"] not in SAFE_METHODS and not _is_own_origin(scope, headers):
            return Refusal(403, "This request came from another page, so nothing was done.")
        path: str = scope["path"]
        if path in OPEN_PATHS or path.startswith(OPEN_FOLDER):
            return None
        if await run_in_threadpool(self._sessions.is_open, cookie_of(headers, self._cookie)):
            return None
        return Refusal(401, "This browser has not been let in yet.")


def _is_own_origin(scope: Scope, headers: Headers) -> bool:
    """Browsers send Origin with every unsafe request; without it, it is not one of our pages."""
    return headers.getlist("origin") == [f"{scope['scheme']}://{headers['host']}"]


def _with_headers(send: Send) -> Send:
    async def sender(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sender


def _with_limit(receive: Receive, limit_bytes: int) -> Receive:
    received_bytes = 0

    async def receiver() -> Message:
        nonlocal received_bytes
        message = await receive()
        received_bytes += len(message.get("body", b""))
        if received_bytes > limit_bytes:
            raise HTTPException(
                413, f"This is larger than {limit_bytes >> 20} MB, the most taken here."
            )
        return message

    return receiver

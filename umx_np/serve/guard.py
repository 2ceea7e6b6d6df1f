"""Who may ask: only whoever was given the token, from a page of this server, by its own name."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .store import RefusedError

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_HEADERS = {
    # Nothing but the files of the page, no inline scripts or styles, no other server.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
_SAFE = ("GET", "HEAD", "OPTIONS")


class Guard:
    """Refuses what comes from elsewhere, and adds to all answers what browsers are to heed.

    Parameters
    ----------
    app : callable
        What answers, an ASGI application.
    host : str
        Address or name that the server listens on.
    port : int
        Its port, a part of the name of the cookie: cookies know no ports.

    Attributes
    ----------
    token : str
        New for each guard; in the address of the page, then in a cookie.
    once : str or None
        Stands for the token once. Programs are given it where other users of the machine see what
        they are given.
    """

    def __init__(self, app: ASGIApp, host: str, port: int) -> None:
        self.token = secrets.token_urlsafe(32)
        self.once: str | None = secrets.token_urlsafe(32)
        self._app, self._host = app, host
        self._is_local = host in _LOOPBACK
        self._cookie = f"umx-np-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        is_new = False

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    answer[name] = value
                answer.setdefault("cache-control", "no-store")
                if is_new:
                    answer["set-cookie"] = (
                        f"{self._cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict"
                    )
            await send(message)

        app = self._app
        try:
            self._check_names(headers, scope["method"])
            is_new = scope["path"] == "/" and self._opens(scope["query_string"])
            if not is_new:
                self._check_token(headers)
        except RefusedError as refused:
            app = _answer(refused, scope["path"])
        await app(scope, receive, send_guarded)

    def _check_names(self, headers: Headers, method: str) -> None:
        """Refuse other names for this machine (DNS rebinding) and other pages' requests."""
        host = headers.get("host", "")
        if not self._is_known(host):
            raise RefusedError(
                403, "the request names another host; open the address of the server"
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise RefusedError(403, "the request comes from another page")
        site = headers.get("sec-fetch-site", "none")
        if method not in _SAFE and site not in ("none", "same-origin"):
            raise RefusedError(403, "the request comes from another page")

    def _is_known(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
        except ValueError:
            return False
        if name in _LOOPBACK or name == self._host.lower():
            return True
        if self._is_local:
            return False
        if name == socket.gethostname().lower():
            return True
        try:
            ipaddress.ip_address(name)  # which nobody can make lead elsewhere
        except ValueError:
            return False
        return True

    def _opens(self, query: bytes) -> bool:
        """Whether an address of the page holds the token, or stands for it once."""
        fields = parse_qs(query.decode("latin-1"))
        if _same(fields.get("token", [""])[0], self.token):
            return True
        if self.once is not None and _same(fields.get("once", [""])[0], self.once):
            self.once = None
            return True
        return False

    def _check_token(self, headers: Headers) -> None:
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _same(bearer.strip(), self.token):
            return
        try:
            held = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            held = None
        if held is None or not _same(held.value, self.token):
            raise RefusedError(
                401,
                "this needs the token of the server, which is new at every start: open the address "
                "that `umx-np serve` printed",
            )


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _answer(refused: RefusedError, path: str) -> Response:
    if path.startswith("/api/"):
        return error_response(refused.status, "RefusedError", str(refused))
    return PlainTextResponse(str(refused) + "\n", refused.status)


def error_response(status: int, kind: str, message: str) -> JSONResponse:
    """Answer with an error, in the form that all of them have here."""
    headers = {"www-authenticate": "Bearer"} if status == 401 else None
    return JSONResponse({"error": {"type": kind, "message": message}}, status, headers)

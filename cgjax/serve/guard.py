"""The checks that every request must pass before it is answered.

A page of another site can make a browser send requests here. If it points a host name of its own at
this machine (DNS rebinding), it can even read the answers. So a request needs three things. The
token that the command printed: in the address of the page, and in a header of everything else,
which another site cannot set. A Host that no other site can have: an IP address, localhost, or a
name of this machine. And no other site as its origin.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_HEADER = "x-cgjax-token"

MAX_BODY = 4 * 2**20
"""Largest request body in bytes: enough for names of 10,000 characters for a hundred clusters."""

_MAX_LENGTH_DIGITS = 18  # Python refuses to convert texts of more than 4,300 digits

HEADERS = {
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Refused(Exception):
    """A request that did not pass the checks.

    Attributes:
        status: HTTP status code.
        reason: one line for the client.
    """

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


class Guard:
    """Middleware that checks every request and adds `HEADERS` to every response."""

    def __init__(self, app: ASGIApp, token: str, hosts: Iterable[str]):
        """Wrap an application.

        Args:
            app: an ASGI application.
            token: a secret, from `secrets.token_urlsafe`.
            hosts: host names of this machine that are accepted besides localhost.
        """
        self._app, self._token = app, token
        self._hosts = {"localhost", *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            raise RuntimeError(f"expected HTTP, not {scope['type']}")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
        except Refused as refused:
            response = PlainTextResponse(refused.reason + "\n", refused.status)
            await response(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if not is_own_host(headers.get("host", ""), self._hosts):
            raise Refused(421, "this server does not answer to that host name")
        origin = headers.get("origin")
        is_foreign = origin is not None and origin.partition("://")[2] != headers["host"]
        is_page = scope["method"] in ("GET", "HEAD") and scope["path"] == "/"
        site = headers.get("sec-fetch-site", "none")
        if is_foreign or (not is_page and site not in ("none", "same-origin")):
            raise Refused(403, "requests from another site are refused")
        token = headers.get(TOKEN_HEADER, "")
        if is_page:
            token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [token])[0]
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            raise Refused(
                403, "the token is missing or out of date: open the address that cgjax printed"
            )
        check_size(headers)


def is_own_host(host: str, names: Iterable[str]) -> bool:
    """Return whether a Host header holds an IP address or one of `names`, with any port.

    >>> [is_own_host(h, ["localhost"]) for h in ("127.0.0.1:80", "[::1]", "localhost:9", "a.org")]
    [True, True, True, False]
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        urlsplit(f"//{host}").port  # noqa: B018 - raises if it is not a number
    except ValueError:
        return False
    if name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_size(headers: Mapping[str, str]) -> None:
    """Refuse a body whose declared length is too large; without one, the bytes read are counted.

    Raises:
        Refused: with 413, or 400 for a length that is not a number.
    """
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise Refused(400, "content-length is not a number")
    if len(length) > _MAX_LENGTH_DIGITS or int(length) > MAX_BODY:
        raise Refused(413, f"the request is larger than {MAX_BODY} bytes")

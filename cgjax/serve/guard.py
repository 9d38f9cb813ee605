"""What every request has to pass before it is answered.

A page of another site can make a browser send requests here, or, by a name of its own that it lets
point to this machine, read the answers (DNS rebinding). So a request needs the token that the
command printed, in the address of the page and in a header of everything else, which another site
cannot set; a Host that no other site can have: a number, localhost, or a name of this machine; and
no other site as its origin.
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

# Bytes that a request may send: names of 10,000 characters for a hundred clusters.
MAX_BODY = 4 * 2**20

HEADERS = {
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Refused(Exception):
    """A request that is not answered.

    Attributes:
        status: of HTTP.
        reason: one line.
    """

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


class Guard:
    """The application behind the checks; adds the headers of `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp, token: str, hosts: Iterable[str]):
        """Wrap an application.

        Args:
            app: of ASGI.
            token: see `secrets.token_urlsafe`.
            hosts: names, besides localhost, that a request may call this machine by.
        """
        self._app, self._token = app, token
        self._hosts = {"localhost", *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            raise RuntimeError(f"no {scope['type']} is spoken here")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
        except Refused as refused:
            answer = PlainTextResponse(refused.reason + "\n", refused.status)
            await answer(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if not is_own_host(headers.get("host", ""), self._hosts):
            raise Refused(421, "this is not the server that you asked for")
        origin = headers.get("origin")
        is_foreign = origin is not None and urlsplit(origin).netloc != headers["host"]
        is_page = scope["method"] in ("GET", "HEAD") and scope["path"] == "/"
        site = headers.get("sec-fetch-site", "none")
        if is_foreign or (not is_page and site not in ("none", "same-origin")):
            raise Refused(403, "requests of another site are not answered")
        given = headers.get(TOKEN_HEADER, "")
        if is_page:
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [given])[0]
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            raise Refused(403, "the token is missing or old: open the address that cgjax printed")
        check_size(headers)


def is_own_host(host: str, names: Iterable[str]) -> bool:
    """Return whether a Host header is a number, or one of some names; whatever its port.

    >>> [is_own_host(h, ["localhost"]) for h in ("127.0.0.1:80", "[::1]", "localhost:9", "a.org")]
    [True, True, True, False]
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        urlsplit(f"//{host}").port  # noqa: B018 - raises if it is no number
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
    """Refuse a body that says that it is too large; one that does not say is counted when read.

    Raises:
        Refused: with 413, or 400 for a length that is no number.
    """
    length = headers.get("content-length", "0")
    if not length.isdigit():
        raise Refused(400, "content-length is no number")
    if int(length) > MAX_BODY:
        raise Refused(413, f"more than {MAX_BODY} bytes")

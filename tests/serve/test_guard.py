"""Requests that are refused: from another site, under another host name, without the token."""

import asyncio

import pytest
from starlette.responses import PlainTextResponse

from cgjax.serve.guard import MAX_BODY, Guard, is_own_host

HOST = {"host": "127.0.0.1:8000", "x-cgjax-token": "secret"}


def answer(path="/api/draw", method="POST", query="", **headers):
    """Return status, headers and body of the response; header names have underscores here."""
    given = {name.replace("_", "-"): value for name, value in (HOST | headers).items()}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(n.encode(), v.encode("latin-1")) for n, v in given.items() if v is not None],
    }
    sent = []

    async def receive():
        return {"type": "http.request", "body": b""}

    async def send(message):
        sent.append(message)

    guard = Guard(PlainTextResponse("inside"), "secret", ["studio"])
    asyncio.run(guard(scope, receive, send))
    names = {n.decode(): v.decode() for n, v in sent[0]["headers"]}
    return sent[0]["status"], names, sent[1]["body"].decode()


def test_a_request_of_the_page_itself_is_answered_and_never_cached():
    status, headers, body = answer(origin="http://127.0.0.1:8000", sec_fetch_site="same-origin")
    assert (status, body) == (200, "inside")
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (403, {"x-cgjax-token": None}),
        (403, {"x-cgjax-token": "secreT"}),
        (403, {"x-cgjax-token": "é"}),
        (403, {"path": "/", "method": "GET", "x-cgjax-token": None}),
        (403, {"path": "/", "method": "GET", "query": "token=wrong"}),
        # The token in an address is for the page alone.
        (403, {"x-cgjax-token": None, "query": "token=secret"}),
        (421, {"host": "evil.example:8000"}),
        (421, {"host": "evil.example", "path": "/", "method": "GET", "query": "token=secret"}),
        (421, {"host": "127.0.0.1.evil.example"}),
        (421, {"host": "127.0.0.1:80@evil.example"}),
        (421, {"host": "localhost:x"}),
        (421, {"host": ""}),
        (421, {"host": None}),
        (403, {"origin": "http://evil.example"}),
        (403, {"origin": "http://127.0.0.1:9"}),
        (403, {"origin": "null"}),
        (403, {"origin": "http://["}),
        (403, {"sec_fetch_site": "cross-site"}),
        (403, {"sec_fetch_site": "same-site"}),
        (421, {"host": "localhost:" + "9" * 5000}),
        (413, {"content_length": str(MAX_BODY + 1)}),
        (413, {"content_length": "9" * 5000}),
        (400, {"content_length": "²"}),
        (400, {"content_length": "many"}),
        (400, {"content_length": "-1"}),
    ],
)
def test_a_foreign_request_is_refused_with_one_line(status, request_):
    found, headers, body = answer(**request_)
    assert found == status
    assert body != "inside"
    assert body.count("\n") == 1
    assert "secret" not in body
    assert headers["cache-control"] == "no-store"


def test_the_page_takes_its_token_from_the_address_even_when_linked_from_elsewhere():
    request = {"path": "/", "method": "GET", "query": "token=secret", "x-cgjax-token": None}
    assert answer(**request, sec_fetch_site="cross-site")[0] == 200


def test_names_of_this_machine_and_ip_addresses_are_accepted_with_any_port():
    own = ("studio", "STUDIO:80", "localhost", "10.0.0.7:8000", "[::1]:9", "127.0.0.1")
    assert all(is_own_host(host, {"localhost", "studio"}) for host in own)


def test_other_protocols_are_refused():
    guard = Guard(PlainTextResponse("inside"), "secret", [])
    with pytest.raises(RuntimeError, match="websocket"):
        asyncio.run(guard({"type": "websocket"}, None, None))

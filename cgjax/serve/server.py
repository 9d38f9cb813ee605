"""The process that serves a run until it is stopped."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from absl import logging

from cgjax.errors import UserError
from cgjax.runtime.signals import SIGNALS, on_interrupt
from cgjax.serve.app import Served
from cgjax.serve.guard import Guard
from cgjax.stages.pipeline import Pipeline

FIRST_PORT, NUM_PORTS = 20_000, 10_000
"""Ports that the system does not hand out by itself and that few services use."""


def serve(pipeline: Pipeline, host: str, port: int | None) -> None:
    """Serve a run's page until Ctrl-C or SIGTERM.

    Args:
        pipeline: of the run, whose folder is locked.
        host: the address to listen on.
        port: 0 for any free port; None for the folder's own, see `port_of`, or else a free one.

    Raises:
        UserError: an address or port that cannot be used; a run with nothing to show.
    """
    with listen_for(pipeline.run.folder.root, host, port) as listener:
        start = time.monotonic()
        pipeline.report()
        served = Served(pipeline)
        try:
            served.draws.warm_up()
            logging.info("ready to draw after %.1f s", time.monotonic() - start)
            server, address = prepare(served, listener, host)
            print(f"open {address}\nnames are saved as you type; stop with Ctrl-C", flush=True)
            if not _is_loopback(host):
                print("anyone with this address can draw images and change names", flush=True)
            server.run(sockets=[listener])
        finally:
            served.worker.close()
            served.renew()


def prepare(served: Served, listener: socket.socket, host: str) -> tuple[Server, str]:
    """Return a run's server, behind its guard, and the address to open, with a new token."""
    token = secrets.token_urlsafe(24)
    guarded = Guard(served.app, token, [host, socket.gethostname()])
    settings = uvicorn.Config(
        guarded,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=64,
        timeout_graceful_shutdown=2,
    )
    address = f"http://{_url_host(host)}:{listener.getsockname()[1]}/?token={token}"
    return Server(settings), address


class Server(uvicorn.Server):
    """A server that a signal stops in the ordinary way: the command then ends normally."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop serving on Ctrl-C and SIGTERM; uvicorn's own method would raise them again after."""
        with on_interrupt(self.handle_exit, SIGNALS):
            yield


def port_of(root: Path) -> int:
    """Return the port of a run's folder: the same at every start.

    A browser stores drafts by host and port; with another port it would not find them.
    """
    path = os.fsencode(root.resolve())
    return FIRST_PORT + int(hashlib.sha256(path).hexdigest(), 16) % NUM_PORTS


def listen_for(root: Path, host: str, port: int | None) -> socket.socket:
    """Return a listening socket; arguments and errors as for `serve`."""
    if port is not None:
        return listen(host, port)
    try:
        return listen(host, port_of(root))
    except UserError:
        logging.info("port %d of this folder is not available; using another", port_of(root))
        return listen(host, 0)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        UserError: says which address or port cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"--port={port} is in use; give another, or 0 for a free one") from None
        if error.errno == errno.EACCES:
            raise UserError(f"--port={port} is not allowed; give one above 1023") from None
        # Python appends the address as a tuple.
        reason = str(error.strerror).partition(" (while")[0]
        raise UserError(
            f"--host={host}: {reason}; expected an address of this machine, such as 127.0.0.1"
        ) from None


def _url_host(host: str) -> str:
    """Return a host as written in a URL; "all addresses" becomes this machine's own."""
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")

"""The process that serves a run until it is stopped."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from absl import logging

from cgjax.errors import UserError
from cgjax.runtime.signals import SIGNALS
from cgjax.serve.app import Served
from cgjax.serve.guard import Guard
from cgjax.stages.pipeline import Pipeline

FIRST_PORT, NUM_PORTS = 20_000, 10_000
"""Ports that are given out neither by the system nor, mostly, to services."""


def serve(pipeline: Pipeline, host: str, port: int | None) -> None:
    """Serve a run's page until Ctrl-C or SIGTERM.

    Args:
        pipeline: of the run, whose folder is locked.
        host: the address to listen at.
        port: 0 for a free one; None for that of the folder, see `port_of`, or else a free one.

    Raises:
        UserError: an address or port that cannot be had; a run without anything to show.
    """
    with listen_for(pipeline.run.folder.root, host, port) as listener:
        began = time.monotonic()
        pipeline.report()
        served = Served(pipeline)
        try:
            served.draws.warm_up()
            logging.info("ready to draw after %.1f s", time.monotonic() - began)
            server, address = prepare(served, listener, host)
            print(f"open {address}\nnames are saved as they are typed; Ctrl-C stops", flush=True)
            if not _is_loopback(host):
                print("anybody who has this address can draw and name", flush=True)
            server.run(sockets=[listener])
        finally:
            served.worker.close()
            served.renew()


def prepare(served: Served, listener: socket.socket, host: str) -> tuple[Server, str]:
    """Return the server of a run behind its guard, and the address to open, with a fresh token."""
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
    address = f"http://{_shown(host)}:{listener.getsockname()[1]}/?token={token}"
    return Server(settings), address


class Server(uvicorn.Server):
    """A server whose end is the normal end of its command, however it was asked for."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM end serving; uvicorn's own raises them again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may set handlers
            return
        old = {s: signal.signal(s, self.handle_exit) for s in SIGNALS}
        try:
            yield
        finally:
            for number, previous in old.items():
                signal.signal(number, previous)


def port_of(root: Path) -> int:
    """Return the port of a run's folder: the same at every start.

    A browser keeps what was typed by host and port: at another one it would not be found again.
    """
    path = os.fsencode(root.resolve())
    return FIRST_PORT + int(hashlib.sha256(path).hexdigest(), 16) % NUM_PORTS


def listen_for(root: Path, host: str, port: int | None) -> socket.socket:
    """Return a socket that listens; arguments and errors as for `serve`."""
    if port is not None:
        return listen(host, port)
    try:
        return listen(host, port_of(root))
    except UserError:
        logging.info("port %d of this folder cannot be had: a free one is taken", port_of(root))
        return listen(host, 0)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UserError: saying what cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except socket.gaierror as error:
        raise UserError(
            f"--host={host}: {error.strerror}; expected an address, 127.0.0.1"
        ) from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"--port={port} is in use; give another, or 0 for a free one") from None
        if error.errno == errno.EACCES:
            raise UserError(f"--port={port} is not allowed; give one above 1023") from None
        raise UserError(f"--host={host}: {error.strerror}; try 127.0.0.1") from None


def _shown(host: str) -> str:
    """Return a host as it stands in an address; that of every one is this machine's own."""
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")

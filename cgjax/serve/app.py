"""The web application: page, names, draws and downloads. `Guard` checks every request first."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

from absl import logging
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from cgjax.errors import UserError
from cgjax.regions.page_names import names_of
from cgjax.report.build import page_of
from cgjax.runtime.command import users_error
from cgjax.serve.draws import Draws, Message
from cgjax.serve.guard import MAX_BODY
from cgjax.serve.wanted import wanted_of
from cgjax.serve.worker import Full, Item, Task, Worker
from cgjax.stages.name import merge_names
from cgjax.stages.pipeline import Pipeline
from cgjax.stages.report import summary_of

KINDS = {"zip": "application/zip", "npy": "application/octet-stream", "png": "image/png"}


class Served:
    """A run and the application that serves it.

    Attributes:
        pipeline: of the run; its folder is locked, so no other process writes to it.
        draws: makes and keeps the draws.
        worker: the thread that draws.
        app: the application.
    """

    def __init__(self, pipeline: Pipeline, worker: Worker | None = None):
        """Set up the routes; nothing is drawn or compiled yet, see `Draws.warm_up`."""
        self.pipeline = pipeline
        self.draws = Draws(pipeline.run)
        self.worker = worker or Worker()
        # Several threads read and write the names and the page.
        self._folder_lock = threading.Lock()
        self._is_page_stale = False
        self.app = Starlette(
            routes=[
                Route("/", self.page),
                Route("/api/names", self.save_names, methods=["PUT"]),
                Route("/api/draw", self.draw, methods=["POST"]),
                Route("/api/drawn/{token}/{kind}", self.download),
            ],
            exception_handlers={HTTPException: _refuse, UserError: _user_error},
        )

    async def page(self, request: Request) -> Response:
        """Return the page with the present names."""

        def render() -> str:
            with self._folder_lock:
                return page_of(self.pipeline.run, summary_of(self.pipeline.run), is_served=True)

        return HTMLResponse(await run_in_threadpool(render))

    async def save_names(self, request: Request) -> Response:
        """Merge names as --mode=name does; respond with its messages and the resulting names."""
        given = names_of(await read_json(request), "the request")

        def save() -> dict[str, Any]:
            with self._folder_lock:
                lines = merge_names(self.pipeline.run, given)
                self._is_page_stale = True
                held = self.pipeline.run.held
                entries = {one.digest: held.entries_of(one) for one in held.named()}
            for line in lines:
                logging.info("%s", line.text)
            return {"lines": [line._asdict() for line in lines], "entries": entries}

        return JSONResponse(await run_in_threadpool(save), background=BackgroundTask(self.renew))

    def renew(self) -> None:
        """Rewrite the page's file if names were saved since it was written."""
        with self._folder_lock:
            if self._is_page_stale:
                self.pipeline.report()
                self._is_page_stale = False

    async def draw(self, request: Request) -> Response:
        """Draw; respond with one JSON message per line, as they come."""
        wanted = wanted_of(await read_json(request))
        task = self._submit(self.draws.draw(wanted))
        logging.info("drawing %d images of %.80s", wanted.num, wanted.cluster)
        return _Stream(task, _line, "application/x-ndjson")

    async def download(self, request: Request) -> Response:
        """Send a draw as a file; `?num=` limits it to the first images."""
        drawn = self.draws.find(request.path_params["token"])
        if drawn is None:
            raise HTTPException(404, "the server no longer has this draw; draw it again")
        kind, num = request.path_params["kind"], request.query_params.get("num", "")
        if re.fullmatch(r"[1-9][0-9]{0,8}", num):
            drawn = drawn.first(int(num))
        task = self._submit(self.draws.download(drawn, kind))
        return _Stream(task, bytes, KINDS[kind.rpartition(".")[2]])

    def _submit(self, steps: Generator[Item, None, None]) -> Task[Item]:
        try:
            return self.worker.submit(steps)
        except Full:
            raise HTTPException(503, "too many draws are running; try again in a moment") from None


class _Stream(StreamingResponse):
    """Streams a task's items as they come; cancels the task when the client has gone."""

    def __init__(self, task: Task[Any], encode: Callable[[Any], bytes], media_type: str):
        self._task = task

        async def parts() -> AsyncIterator[bytes]:
            async for item in task:
                yield encode(item)

        super().__init__(parts(), media_type=media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._task.cancel()


def _line(message: Message) -> bytes:
    return json.dumps(message).encode() + b"\n"


async def read_json(request: Request) -> Any:
    """Read a request's body.

    Raises:
        HTTPException: 415 if its content type is not JSON, 413 if it is larger than `MAX_BODY`, 400
            if it is not valid JSON.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip()
    if content_type != "application/json":
        raise HTTPException(415, "expected the content type application/json")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"the request is larger than {MAX_BODY} bytes")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "the request is not valid JSON") from None


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return Response(f"{error.detail}\n", error.status_code, media_type="text/plain")


async def _user_error(request: Request, error: Exception) -> Response:
    return Response(f"{users_error(error)}\n", 400, media_type="text/plain")

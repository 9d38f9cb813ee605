"""One thread for the model, in which several tasks take turns, one step each.

A task runs an iterator. Between two of its items other tasks advance, so that a request for ten
images need not wait for one for a thousand. The items go to an asyncio loop, where the client
awaits them. A task whose client does not take its items pauses; one that is cancelled ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Generator
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

BACKLOG = 4
"""Number of items that may wait for a client before its task pauses."""


class Full(Exception):
    """The worker has as many tasks as it accepts."""


class Task(Generic[Item]):
    """A task as its client sees it: an asynchronous iterator over its items.

    An exception in the task is raised to the client.
    """

    def __init__(self, worker: Worker, steps: Generator[Item, None, None]):
        self._worker, self._steps = worker, steps
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[Item | BaseException] = asyncio.Queue()
        self.waiting = 0
        self.is_cancelled = False

    def __aiter__(self) -> Task[Item]:
        """Return itself."""
        return self

    async def __anext__(self) -> Item:
        """Await the next item."""
        item = await self._items.get()
        self._worker.change(self, taken=1)
        if isinstance(item, StopIteration):
            raise StopAsyncIteration
        if isinstance(item, BaseException):
            raise item
        return item

    def cancel(self) -> None:
        """Stop the task after its current step; calling it again does nothing."""
        self._worker.change(self, cancel=True)

    def advance(self) -> bool:
        """Take one step, in the worker's thread; return whether more may follow."""
        try:
            item: Item | BaseException = next(self._steps)
            is_over = False
        except BaseException as error:  # of any kind: the client sees it
            item, is_over = error, True
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody awaits the item
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)
        return not is_over

    def close(self) -> None:
        """Run the iterator's own `finally`, in the worker's thread."""
        self._steps.close()


class Worker:
    """The thread that runs the tasks.

    Example:
        worker = Worker()
        async for image in worker.submit(draw()):
            ...
    """

    def __init__(self, most: int = 16):
        """Start the thread.

        Args:
            most: largest number of unfinished tasks.
        """
        self._most = most
        self._tasks: deque[Task[Any]] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    def submit(self, steps: Generator[Item, None, None]) -> Task[Item]:
        """Queue a task; called from the loop that awaits its items.

        Raises:
            Full: if there are too many tasks, or the worker is closed.
        """
        with self._changed:
            if self._is_closed or len(self._tasks) >= self._most:
                raise Full
            task = Task(self, steps)
            self._tasks.append(task)
            self._changed.notify()
        return task

    @property
    def num(self) -> int:
        """Number of unfinished tasks."""
        with self._changed:
            return len(self._tasks)

    def change(self, task: Task[Any], *, taken: int = 0, cancel: bool = False) -> None:
        """Record that a client took items or cancelled its task."""
        with self._changed:
            task.waiting -= taken
            task.is_cancelled |= cancel
            self._changed.notify()

    def close(self) -> None:
        """End the thread after its current step."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while (task := self._next()) is not None:
            if task.is_cancelled:
                task.close()
                self._remove(task)
            elif not task.advance():
                self._remove(task)

    def _next(self) -> Task[Any] | None:
        """Wait for a task that can advance or was cancelled; None once the worker is closed."""
        with self._changed:
            while not self._is_closed:
                for _ in range(len(self._tasks)):
                    task = self._tasks[0]
                    self._tasks.rotate(-1)
                    if task.is_cancelled:
                        return task
                    if task.waiting < BACKLOG:
                        task.waiting += 1
                        return task
                self._changed.wait()
        return None

    def _remove(self, task: Task[Any]) -> None:
        with self._changed:
            self._tasks.remove(task)

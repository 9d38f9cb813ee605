"""Tasks take turns in one thread; those whose client takes nothing pause or end."""

import asyncio
import threading

import pytest

from cgjax.serve.worker import BACKLOG, Full, Worker


@pytest.fixture
def worker():
    worker = Worker(most=3)
    yield worker
    worker.close()


def counting(name, num, log):
    try:
        for i in range(num):
            log.append((name, i, threading.current_thread().name))
            yield i
    finally:
        log.append((name, "end", threading.current_thread().name))


async def until(condition):
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the condition never became true")


async def all_of(task):
    return [item async for item in task]


def test_two_tasks_take_turns_in_one_thread_and_each_client_gets_its_own_items(worker):
    log = []

    async def both():
        tasks = [worker.submit(counting(name, 5, log)) for name in "ab"]
        return await asyncio.gather(*map(all_of, tasks))

    assert asyncio.run(both()) == [list(range(5))] * 2
    assert {thread for *_, thread in log} == {"model"}
    order = "".join(name for name, step, _ in log if step != "end")
    assert "aaa" not in order
    assert "bbb" not in order


def test_a_task_whose_client_takes_nothing_pauses_and_ends_when_cancelled(worker):
    log = []

    async def leave():
        task = worker.submit(counting("a", 1000, log))
        await until(lambda: len(log) == BACKLOG)
        await asyncio.sleep(0.05)
        assert len(log) == BACKLOG
        task.cancel()
        await until(lambda: worker.num == 0)

    asyncio.run(leave())
    assert log[-1] == ("a", "end", "model")
    assert len(log) == BACKLOG + 1


def test_an_exception_reaches_its_client_and_the_next_task_runs(worker):
    def failing():
        yield 1
        raise ValueError("no")

    async def both():
        with pytest.raises(ValueError, match="no"):
            await all_of(worker.submit(failing()))
        return await all_of(worker.submit(counting("b", 2, [])))

    assert asyncio.run(both()) == [0, 1]


def test_no_more_tasks_than_the_limit_are_accepted(worker):
    async def fill():
        tasks = [worker.submit(counting("a", 1000, [])) for _ in range(3)]
        with pytest.raises(Full):
            worker.submit(counting("a", 1, []))
        for task in tasks:
            task.cancel()
        await until(lambda: worker.num == 0)
        assert await all_of(worker.submit(counting("a", 1, []))) == [0]

    asyncio.run(fill())

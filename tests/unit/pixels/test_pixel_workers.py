"""The bound on codec work."""

import asyncio
import threading

import pytest

from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.domain.errors import DeadlineExceeded, OutOfResources


async def test_more_than_the_bound_is_refused_and_places_come_back() -> None:
    workers, go = PixelWorkers(1, waiting=1), threading.Event()
    try:
        first, second = [asyncio.ensure_future(workers.run(go.wait, 30)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(OutOfResources):
            await workers.run(go.wait)
        go.set()
        assert await asyncio.gather(first, second) == [True, True]
        assert await workers.run(sum, [1, 2]) == 3
    finally:
        go.set()
        workers.close()


async def test_work_that_takes_too_long_is_given_up() -> None:
    workers, go = PixelWorkers(1, seconds=0.05), threading.Event()
    try:
        with pytest.raises(DeadlineExceeded):
            await workers.run(go.wait, 30)
    finally:
        go.set()
        workers.close()


async def test_an_error_is_the_callers() -> None:
    workers = PixelWorkers(1)
    try:
        with pytest.raises(ZeroDivisionError):
            await workers.run(divmod, 1, 0)
    finally:
        workers.close()


async def test_frames_wait_for_memory_and_a_large_one_goes_alone() -> None:
    workers, inside = PixelWorkers(1, memory=100), []

    async def work(size: int, leave: asyncio.Event) -> None:
        async with workers.room(size):
            inside.append(size)
            await leave.wait()
        inside.remove(size)

    try:
        small, large, last = (asyncio.Event() for _ in range(3))
        tasks = [asyncio.create_task(work(60, small))]
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(work(500, large)), asyncio.create_task(work(30, last))]
        while len(inside) < 2:
            await asyncio.sleep(0)
        assert inside == [60, 30]
        small.set()
        last.set()
        while inside != [500]:
            await asyncio.sleep(0)
        waiting = asyncio.create_task(work(1, asyncio.Event()))
        await asyncio.sleep(0)
        waiting.cancel()
        large.set()
        await asyncio.gather(*tasks)
        async with workers.room(100):
            assert inside == []
    finally:
        workers.close()


async def test_who_waits_too_long_for_memory_is_refused() -> None:
    workers = PixelWorkers(1, seconds=0.05, memory=100)
    try:
        async with workers.room(100):
            with pytest.raises(OutOfResources):
                await workers.room(1).__aenter__()
        async with workers.room(1):
            pass
    finally:
        workers.close()

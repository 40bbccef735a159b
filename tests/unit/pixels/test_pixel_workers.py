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

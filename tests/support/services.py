"""Running one service's ``main`` within a test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from imaging_services.runtime import Lifecycle


@asynccontextmanager
async def running(
    main: Callable[[Any, Lifecycle], Awaitable[None]], settings: Any, seconds: float = 60, worker: int | None = None
) -> AsyncIterator[Lifecycle]:
    """The service, ready; told to stop at the end and waited for. Its failure is the test's. ``worker`` is its number
    where it is one of several."""
    lifecycle = Lifecycle(worker=worker)
    task = asyncio.ensure_future(main(settings, lifecycle))
    ready = asyncio.ensure_future(lifecycle.ready.wait())
    try:
        await asyncio.wait({task, ready}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        assert ready.done(), f"not ready after {seconds} s"
        yield lifecycle
    finally:
        ready.cancel()
        lifecycle.stop.set()
        async with asyncio.timeout(seconds):
            await task

"""Threads for blocking work over stored files: it waits for ranges of the object most of the time.

They are not the event loop's own threads: storage spaces may need those to read the ranges, and would wait for a thread
that waits for them.
"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, TypeVar

from imaging_services.domain.errors import BackendUnavailable, OutOfResources

T = TypeVar("T")

THREADS = 32
WAITING = 512
"""Pieces of work that may wait for a thread, each with the header that it begins with; more are refused."""
FETCH_SECONDS = 60.0


class Inspections:
    """The work of one process; ``threads`` pieces run at once, ``waiting`` stand behind them."""

    def __init__(self, threads: int = THREADS, waiting: int = WAITING) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inspect")
        self._most, self._under_way = threads + waiting, 0

    async def run(self, work: Callable[["Fetches"], T]) -> T:
        """Run blocking work, which gets at data by ``Fetches``. Raises ``OutOfResources`` when too much waits.

        When the caller is cancelled, work that has begun ends with its next fetch.
        """
        if self._under_way >= self._most:
            raise OutOfResources("too many stored files are being read")
        fetches = Fetches(asyncio.get_running_loop())
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, fetches)
        finally:
            self._under_way -= 1
            fetches.stop()


class Fetches:
    """Lets a thread wait for coroutines of the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._stopped = loop, Event()

    def get(self, fetch: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result. Raises what it raises, ``TimeoutError`` after a minute."""
        if self._stopped.is_set():
            fetch.close()
            raise BackendUnavailable("nobody waits for what is read")
        return asyncio.run_coroutine_threadsafe(fetch, self._loop).result(FETCH_SECONDS)

    def stop(self) -> None:
        """Nobody wants the result any more."""
        self._stopped.set()


INSPECTIONS = Inspections()
"""Those of this process: threads start as they are needed."""

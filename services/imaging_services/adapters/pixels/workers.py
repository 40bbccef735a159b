"""Threads for codecs, which release the interpreter's lock: the event loop never waits for one."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from imaging_services.domain.errors import DeadlineExceeded, OutOfResources

T = TypeVar("T")


class PixelWorkers:
    """One a process. ``threads`` codecs run at once (None: as many as the machine has cores), ``waiting`` more may
    stand behind them; each has ``seconds`` from the moment that it is handed in."""

    def __init__(self, threads: int | None = None, *, waiting: int = 64, seconds: float = 60.0) -> None:
        threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pixels")
        self._places, self._seconds = threads + waiting, seconds

    async def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Run blocking work. Raises ``OutOfResources`` when too many wait, ``DeadlineExceeded`` after the time limit;
        work that has begun cannot be stopped and holds its thread until it is done."""
        if self._places <= 0:
            raise OutOfResources("too many images wait to be decoded or encoded")
        self._places -= 1
        loop = asyncio.get_running_loop()
        future = self._pool.submit(work, *arguments)
        future.add_done_callback(lambda done: self._finished(loop, done))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._seconds)
        except TimeoutError:
            raise DeadlineExceeded(f"an image was not decoded or encoded within {self._seconds:g} s") from None

    def _finished(self, loop: asyncio.AbstractEventLoop, _done: "Future[T]") -> None:
        try:
            loop.call_soon_threadsafe(self._give_back)
        except RuntimeError:  # the loop has been closed: nobody waits for a place any more
            return

    def _give_back(self) -> None:
        self._places += 1

    def close(self) -> None:
        """Let go of the threads; work that waits is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

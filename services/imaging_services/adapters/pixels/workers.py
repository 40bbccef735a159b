"""Threads for codecs, which release the interpreter's lock: the event loop never waits for one."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from imaging_services.domain.errors import DeadlineExceeded, OutOfResources

T = TypeVar("T")


class PixelWorkers:
    """One a process. ``threads`` codecs run at once (None: as many as the machine has cores), ``waiting`` more may
    stand behind them; each has ``seconds`` from the moment that it is handed in. ``memory``: bytes of frames that all
    requests together hold for them."""

    def __init__(
        self,
        threads: int | None = None,
        *,
        waiting: int = 64,
        seconds: float = 60.0,
        memory: int = 256 * 1024 * 1024,
    ) -> None:
        threads = threads or os.cpu_count() or 1
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pixels")
        self._places, self._seconds = threads + waiting, seconds
        self._memory, self._held, self._freed = memory, 0, asyncio.Event()

    @asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[None]:
        """Memory for a frame of so many bytes, taken before it is read and kept until it is worked on. A frame that is
        larger than all there is goes alone. Raises ``OutOfResources`` when there is none within the time limit."""
        try:
            async with asyncio.timeout(self._seconds):
                while self._held and self._held + size > self._memory:
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            raise OutOfResources("too many large images are decoded or encoded") from None
        self._held += size
        try:
            yield
        finally:
            self._held -= size
            self._freed.set()

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

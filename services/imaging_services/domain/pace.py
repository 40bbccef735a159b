"""Not more work at a target than it wants: at once, and each second."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Pace:
    """``concurrency`` at a time, first come first served; starts spread to at most ``rate`` a second (0: no limit)."""

    def __init__(self, concurrency: int, rate: float = 0) -> None:
        self._at_once = asyncio.Semaphore(concurrency)
        self._interval = 1 / rate if rate else 0.0
        self._next_start = 0.0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn; it lasts as long as the context."""
        async with self._at_once:
            loop = asyncio.get_running_loop()
            start = max(loop.time(), self._next_start)
            self._next_start = start + self._interval
            await asyncio.sleep(start - loop.time())
            yield

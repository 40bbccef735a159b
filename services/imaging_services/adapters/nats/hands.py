"""Who of those that wait for a handler is next: urgent messages before the others."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_URGENT_IN_A_ROW = 4  # then one of the others, which would wait for ever behind urgent ones without end


class Hands:
    """So many messages are in the handler at a time. A hand that becomes free takes the urgent one that has waited
    longest; every fifth takes another, as do all when no urgent one waits."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._in_a_row = 0
        self._waiting: dict[bool, deque[asyncio.Future[None]]] = {True: deque(), False: deque()}

    @asynccontextmanager
    async def hand(self, *, urgent: bool) -> AsyncIterator[bool]:
        """Have a hand for the length of the context; yields whether it had to be waited for."""
        waited = await self._take(urgent=urgent)
        try:
            yield waited
        finally:
            self._give()

    async def _take(self, *, urgent: bool) -> bool:
        if self._free:
            self._free -= 1
            return False
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[urgent].append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():  # it was given the hand, and cancelled before it could use it
                self._give()
            raise
        return True

    def _give(self) -> None:
        first = self._in_a_row < _URGENT_IN_A_ROW
        for urgent in (first, not first):
            while self._waiting[urgent]:
                waiting = self._waiting[urgent].popleft()
                if not waiting.done():
                    self._in_a_row = self._in_a_row + 1 if urgent else 0
                    waiting.set_result(None)
                    return
        self._free += 1

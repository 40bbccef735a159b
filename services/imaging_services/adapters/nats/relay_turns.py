"""Turns at the handler, shared between the JetStream domains whose queues are emptied together.

A store whose data set is an object holds its turn as long as the object is on its way. So that the slow line of one
domain holds up no other, a domain takes another turn only while more are free than it has: one domain by itself holds
half of them, two a third each, and something is left for whoever comes next.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """At most so many at a time; all of them for one domain as long as it is the only one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._domains: set[str | None] = set()
        self._held: Counter[str | None] = Counter()
        self._waiting: dict[str | None, deque[asyncio.Future[None]]] = {}

    def join(self, domain: str | None) -> None:
        """The domain's queue is emptied from now on, None being the own one's; once more is fine."""
        self._domains.add(domain)

    @asynccontextmanager
    async def turn(self, domain: str | None) -> AsyncIterator[None]:
        """To be held while a store of the domain is at work."""
        await self._take(domain)
        try:
            yield
        finally:
            self._give_back(domain)

    async def _take(self, domain: str | None) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(domain, deque()).append(turn)
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._hand_out()
            else:  # it was handed out at the same moment
                self._give_back(domain)
            raise

    def _give_back(self, domain: str | None) -> None:
        self._held[domain] -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        """To those first that have fewest, of equals to who has waited longest."""
        while (free := self._most - self._held.total()) > 0:
            self._forget_cancelled()
            due = [domain for domain in self._waiting if self._may(domain, free)]
            if not due:
                return
            domain = min(due, key=lambda one: self._held[one])
            waiting = self._waiting.pop(domain)
            waiting.popleft().set_result(None)
            self._held[domain] += 1
            if waiting:
                self._waiting[domain] = waiting  # behind the others

    def _forget_cancelled(self) -> None:
        for domain, waiting in list(self._waiting.items()):
            while waiting and waiting[0].cancelled():
                waiting.popleft()
            if not waiting:
                del self._waiting[domain]

    def _may(self, domain: str | None, free: int) -> bool:
        return len(self._domains) <= 1 or self._held[domain] < free

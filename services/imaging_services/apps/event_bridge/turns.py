"""Order where it matters: a study revision goes on only after the events that came before it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from imaging_services.domain.events.envelope import STUDY_REVISION, CloudEvent


class Turns:
    """Events are handled many at a time. A revision waits for those begun before it, so that the other side has the
    study's images when it is told of the study; after a failed try it may still come first."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Future[None]] = set()

    @asynccontextmanager
    async def turn(self, event: CloudEvent) -> AsyncIterator[None]:
        """Enter when it is the event's turn."""
        before = list(self._under_way)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way.add(done)
        try:
            if event.type == STUDY_REVISION and before:
                await asyncio.wait(before)
            yield
        finally:
            self._under_way.discard(done)
            done.set_result(None)

"""Order where it matters: a study revision goes on only after the events that came before it, and so does a deletion,
which everything that came after it waits for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from imaging_services.domain.events.envelope import IMAGE_DELETED, STUDY_REVISION, CloudEvent


class Turns:
    """Events are handled many at a time. A revision waits for those begun before it, so that the other side has the
    study's images when it is told of the study; after a failed try it may still come first. A deletion comes between
    the image that it deletes and the same image stored again."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Future[None]] = set()
        self._deletions: set[asyncio.Future[None]] = set()

    @asynccontextmanager
    async def turn(self, event: CloudEvent) -> AsyncIterator[None]:
        """Enter when it is the event's turn."""
        before = list(self._under_way if event.type in (STUDY_REVISION, IMAGE_DELETED) else self._deletions)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way.add(done)
        if event.type == IMAGE_DELETED:
            self._deletions.add(done)
        try:
            if before:
                await asyncio.wait(before)
            yield
        finally:
            self._under_way.discard(done)
            self._deletions.discard(done)
            done.set_result(None)

"""Associations to the target that last as long as the one at the other end that asks over them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from imaging_services.domain.dicom.dimse import Requestor
from imaging_services.domain.errors import ImagingError, OutOfResources

log = structlog.get_logger(__name__)

Key = tuple[str, Hashable]
"""Association at the other end, and what is negotiated for it."""

_LOOKS = 10  # for those that nobody uses, in the time that they are kept
_SHORTEST_PAUSE = 1.0  # seconds between two


@dataclass(eq=False, slots=True)
class _Kept:
    requestor: Requestor | None = None
    used_at: float = 0.0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class KeptAssociations:
    """At most ``most`` of them; one that is not used for ``idle_seconds`` is released, whatever the other end says."""

    def __init__(self, idle_seconds: float, most: int = 64) -> None:
        self._idle, self._most = idle_seconds, most
        self._kept: dict[Key, _Kept] = {}
        self._watching: asyncio.Task[None] | None = None

    def has_room(self, key: Key) -> bool:
        """It is kept, or may be."""
        return key in self._kept or len(self._kept) < self._most

    @asynccontextmanager
    async def using(self, key: Key, associate: Callable[[], Awaitable[Requestor]]) -> AsyncIterator[Requestor]:
        """The association of the key, opened when it is not there or the target has ended it, for one request at a
        time. A failure ends it."""
        if not self.has_room(key):
            await self._release_idle()
        while True:
            if not self.has_room(key):
                raise OutOfResources(f"{self._most} associations to the target are kept open already")
            kept = self._kept.setdefault(key, _Kept())
            async with kept.turn:
                if self._kept.get(key) is not kept:  # it has ended while its turn was waited for
                    continue
                try:
                    if kept.requestor is None or not kept.requestor.is_open:
                        kept.requestor = None
                        kept.requestor = await associate()
                    yield kept.requestor
                except BaseException:
                    if self._kept.get(key) is kept:  # and not one that was begun while this one was being released
                        del self._kept[key]
                    if kept.requestor is not None:
                        await kept.requestor.abort()
                    raise
                kept.used_at = time.monotonic()
                self._watch()
                return

    async def release(self, association_id: str) -> None:
        """The association at the other end has ended."""
        for key in [key for key in self._kept if key[0] == association_id]:
            await self._release(key)

    async def close(self) -> None:
        """Release all."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        for key in list(self._kept):
            await self._release(key)

    def _watch(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._release_in_time())

    async def _release_in_time(self) -> None:
        """The other end may have gone without a word, and nobody may ask again."""
        while self._kept:
            await asyncio.sleep(max(self._idle / _LOOKS, _SHORTEST_PAUSE))
            await self._release_idle()

    async def _release_idle(self) -> None:
        longest_ago = time.monotonic() - self._idle
        for key, kept in list(self._kept.items()):
            over = kept.requestor is None or not kept.requestor.is_open
            if not kept.turn.locked() and (over or kept.used_at < longest_ago):
                await self._release(key)

    async def _release(self, key: Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is None:
            return
        async with kept.turn:
            if kept.requestor is not None:
                try:
                    await kept.requestor.release()
                except ImagingError as error:
                    log.info("kept association not released", error=str(error))

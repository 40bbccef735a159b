"""Associations to the target that last as long as the one at the other end that asks over them."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from imaging_services.domain.dicom.dimse import Requestor
from imaging_services.domain.errors import ImagingError, OutOfResources

log = structlog.get_logger(__name__)

Key = tuple[str, str, str]
"""Association at the other end, abstract syntax, transfer syntax."""


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

    @asynccontextmanager
    async def using(self, key: Key, associate: Callable[[], Awaitable[Requestor]]) -> AsyncIterator[Requestor]:
        """The association of the key, opened when it is not there, for one request at a time. A failure ends it."""
        await self._release_idle()
        if key not in self._kept and len(self._kept) >= self._most:
            raise OutOfResources(f"{self._most} associations to the target are kept open already")
        kept = self._kept.setdefault(key, _Kept())
        async with kept.turn:
            try:
                if kept.requestor is None:
                    kept.requestor = await associate()
                yield kept.requestor
            except BaseException:
                self._kept.pop(key, None)
                if kept.requestor is not None:
                    await kept.requestor.abort()
                raise
            kept.used_at = time.monotonic()

    async def release(self, association_id: str) -> None:
        """The association at the other end has ended."""
        for key in [key for key in self._kept if key[0] == association_id]:
            await self._release(key)

    async def close(self) -> None:
        """Release all."""
        for key in list(self._kept):
            await self._release(key)

    async def _release_idle(self) -> None:
        longest_ago = time.monotonic() - self._idle
        for key, kept in list(self._kept.items()):
            if not kept.turn.locked() and kept.used_at < longest_ago:
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

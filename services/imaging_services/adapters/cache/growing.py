"""An object on its way from the space into the cache, read meanwhile."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import structlog

from imaging_services.adapters.cache.directory import CacheDirectory, Incoming
from imaging_services.domain.errors import ImagingError

log = structlog.get_logger(__name__)

BLOCK_SIZE = 1024 * 1024
"""Longest block of a stream, bytes."""


class Growing:
    """Read once from the space by ``fill``, by any number of readers from the file that grows: one that is slow or goes
    away holds nobody up, and no more than a block is in memory."""

    def __init__(self, directory: CacheDirectory, key: str) -> None:
        self._directory, self._key = directory, key
        self._incoming = Incoming(directory, key)
        self._written = 0
        self._latest = (0, b"")
        self._changed = asyncio.Event()
        self._ended = False
        self.complete = self.kept = False
        """Everything was read, and is under its name."""
        self.readers = 0

    async def fill(self, blocks: AsyncIterator[bytes], most: int) -> None:
        """Write the object; it stays incomplete at an error, without room, or when it is longer than ``most``
        bytes."""
        try:
            async with aclosing(blocks) as blocks:  # type: ignore[type-var]  # a generator behind its port
                async for block in blocks:
                    if self._written + len(block) > most:
                        return
                    if not await asyncio.to_thread(self._incoming.write, block):
                        return
                    self._latest = (self._written, block)
                    self._written += len(block)
                    self._wake()
            self.complete = True
            self.kept = await asyncio.to_thread(self._incoming.finish)
        except OSError as error:
            self._directory.failed(error)
        except ImagingError as error:
            log.debug("object not kept", key=self._key, reason=str(error))
        finally:
            self._ended = True
            self._latest = (0, b"")
            self._wake()

    async def follow(self) -> AsyncGenerator[bytes, None]:
        """What has been read, as it comes. It may end before the object does: then ``complete`` is false."""
        position = 0
        while True:
            while position == self._written and not self._ended:
                await self._changed.wait()
            if position == self._written:
                return
            offset, block = self._latest
            if offset != position or not block:
                end = min(self._written, position + BLOCK_SIZE)
                try:
                    block = await asyncio.to_thread(self._incoming.read, position, end)
                except OSError as error:
                    self._directory.failed(error)
                    return
                if not block:
                    return
            position += len(block)
            yield block

    async def close(self) -> None:
        """Nobody reads any more, and ``fill`` has ended."""
        await asyncio.to_thread(self._incoming.close)

    @property
    def size(self) -> int:
        """Bytes read so far."""
        return self._written

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

"""A storage space whose objects are kept on this machine when they have been read."""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

import structlog
from prometheus_client import Counter

from imaging_services.adapters.cache.directory import TOUCH_SECONDS, CacheDirectory
from imaging_services.adapters.cache.growing import BLOCK_SIZE, Growing
from imaging_services.adapters.cache.settings import SpaceCacheVariables
from imaging_services.adapters.cache.shared import SharedReads
from imaging_services.domain.budget import ByteBudget
from imaging_services.domain.manifest.deletion import digest_of
from imaging_services.domain.ports import LocalObjects, ObjectInfo, ObjectStore

log = structlog.get_logger(__name__)

HITS = Counter("imaging_space_cache_hits", "reads of objects that were in the cache")
MISSES = Counter("imaging_space_cache_misses", "reads of objects that were not, or not all of it was asked for")
READ = Counter("imaging_space_cache_read_bytes", "read from the cache, without what the kernel sends by itself")

_KNOWN = 65536
"""Objects that are known to be in the cache without looking."""
_WAITING_BYTES = 32 * 1024 * 1024
"""Read, and waiting to be written: what is more is not kept."""
_HEADER_BYTES = 16 * 1024
"""So little is hashed at once: most of it is a header, which is not kept."""


async def cached(space: ObjectStore, settings: SpaceCacheVariables) -> ObjectStore:
    """The space with the cache that the settings name; without any, and of a local folder, the space itself."""
    if settings.SPACE_CACHE_DIRECTORY is None or isinstance(space, LocalObjects):
        return space
    directory = CacheDirectory(settings.SPACE_CACHE_DIRECTORY, settings.SPACE_CACHE_BYTES)
    if not await asyncio.to_thread(directory.prepare):
        return space
    return CachedStore(space, directory, settings.SPACE_CACHE_BYTES // 8)


class CachedStore:
    """Reads from a ``CacheDirectory`` what is there, the rest from the space; what was read whole is kept.

    An object is named by the SHA-256 of its bytes, so a copy is never old, and which bytes are the whole object is seen
    from them. ``head``, ``list`` and ``check`` tell of the space itself.
    """

    def __init__(self, space: ObjectStore, directory: CacheDirectory, largest: int) -> None:
        self._space, self._directory, self._largest = space, directory, largest
        self._known: OrderedDict[str, float] = OrderedDict()
        self._reads, self._budget = SharedReads(), ByteBudget(_WAITING_BYTES)
        self._growing: dict[tuple[str, int | None], tuple[Growing, asyncio.Task[None]]] = {}
        self._keeping: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def bucket_name(self) -> str | None:
        """The space's."""
        return self._space.bucket_name

    async def put(self, key: str, body: bytes | Path) -> None:
        """Write to the space."""
        await self._space.put(key, body)

    async def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Read a range; many who want the same beginning of an object share one reading. Raises ``NotFound``."""
        if digest_of(key) is not None:
            found = await asyncio.to_thread(self._directory.read, key, start, length)
            if found is not None:
                self._hit(key, len(found))
                return found
        self._miss(key)
        if not self._keeps(key, start, length):
            return await self._space.get(key, start, length)
        return await self._reads.read((key, length), lambda: self._get(key, length))

    async def _get(self, key: str, length: int | None) -> bytes:
        content = await self._space.get(key, 0, length)
        size = len(content)
        small = size <= _HEADER_BYTES
        if size > self._largest or (small and hashlib.sha256(content).hexdigest() != digest_of(key)):
            return content
        if self._budget.try_take(size):
            task = asyncio.create_task(self._keep(key, content))
            self._keeping.add(task)
            task.add_done_callback(self._keeping.discard)
        return content

    async def _keep(self, key: str, content: bytes) -> None:
        try:
            if await asyncio.to_thread(self._directory.keep, key, content):
                self._know(key)
        finally:
            self._budget.give_back(len(content))

    async def stream(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Read as blocks; what is kept is read from the cache's file as it grows. Raises ``NotFound`` before the first.

        What the cache cannot give any more is read from the space.
        """
        position, end = start, None if length is None else start + length
        async with aclosing(await self._here(key, start, end)) as blocks:
            async for block in blocks:
                position += len(block)
                if block:
                    yield block
                else:  # that was all of it
                    return
        rest = self._space.stream(key, position, None if end is None else end - position)
        async with aclosing(rest) as blocks:  # type: ignore[type-var]  # a generator behind its port
            async for block in blocks:
                yield block

    async def _here(self, key: str, start: int, end: int | None) -> AsyncGenerator[bytes, None]:
        """Blocks as far as the cache has them; an empty one says that there are no more."""
        file = await asyncio.to_thread(self._directory.open, key) if digest_of(key) is not None else None
        if file is not None:
            self._hit(key, 0)
            return _blocks(file, start, end)
        self._miss(key)
        if self._keeps(key, start, end):
            return self._follow(key, end)
        return _nothing()

    async def _follow(self, key: str, length: int | None) -> AsyncGenerator[bytes, None]:
        growing, task = self._growing.get((key, length)) or self._grow(key, length)
        growing.readers += 1
        sent = 0
        try:
            async with aclosing(growing.follow()) as blocks:
                async for block in blocks:
                    sent += len(block)
                    yield block
            if growing.complete and sent == growing.size:
                yield b""
        finally:
            growing.readers -= 1
            if not growing.readers:
                self._growing.pop((key, length), None)
                ending = asyncio.create_task(self._end(key, growing, task))
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
                await asyncio.shield(
                    ending
                )  # a reader may be cancelled once more; the descriptor is closed all the same

    async def _end(self, key: str, growing: Growing, task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await growing.close()
        if growing.kept:
            self._know(key)

    def _grow(self, key: str, length: int | None) -> "tuple[Growing, asyncio.Task[None]]":
        growing = Growing(self._directory, key)
        task = asyncio.create_task(growing.fill(self._space.stream(key, 0, length), self._largest))
        self._growing[key, length] = growing, task
        return growing, task

    def file(self, key: str) -> Path | None:
        """Where the object is on this machine, None when it is not known to be there. It may be thrown out any time."""
        touched, now = self._known.get(key), time.monotonic()
        if touched is None:
            return None
        if now - touched > TOUCH_SECONDS:
            if not self._directory.touch(key):
                del self._known[key]
                return None
            self._know(key)
        HITS.inc()
        return self._directory.path(key)

    async def file_length(self, key: str) -> int | None:
        """How long the copy is, None when there is none any more."""
        return await asyncio.to_thread(self._directory.length, key) if digest_of(key) is not None else None

    async def head(self, key: str) -> ObjectInfo | None:
        """What the space says."""
        return await self._space.head(key)

    async def delete(self, key: str) -> None:
        """Remove an object, and the copy that this machine has of it."""
        await self._space.delete(key)
        if digest_of(key) is not None:
            self._known.pop(key, None)
            await asyncio.to_thread(self._directory.remove, key)

    def list(self, after: str = "") -> AsyncIterator[ObjectInfo]:
        """What the space says."""
        return self._space.list(after)

    async def check(self) -> None:
        """Of the space: without the cache all goes on."""
        await self._space.check()

    async def close(self) -> None:
        """Give up what is being kept, and close the space."""
        tasks = list(self._keeping)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._ending, return_exceptions=True)
        await self._space.close()

    def _keeps(self, key: str, start: int, end: int | None) -> bool:
        """Whether what is read may be a whole object that is to be kept."""
        whole = start == 0 and (end is None or 0 < end <= self._largest)
        return whole and digest_of(key) is not None and self._directory.usable

    def _hit(self, key: str, size: int) -> None:
        HITS.inc()
        READ.inc(size)
        self._know(key)

    def _miss(self, key: str) -> None:
        MISSES.inc()
        self._known.pop(key, None)

    def _know(self, key: str) -> None:
        self._known[key] = time.monotonic()
        self._known.move_to_end(key)
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)


async def _blocks(file: BinaryIO, start: int, end: int | None) -> AsyncGenerator[bytes, None]:
    with file:
        await asyncio.to_thread(file.seek, start)
        while end is None or start < end:
            wanted = BLOCK_SIZE if end is None else min(BLOCK_SIZE, end - start)
            try:
                block = await asyncio.to_thread(file.read, wanted)
            except OSError as error:
                log.warning("space cache cannot be read, going on from the space", error=str(error))
                return
            if not block:
                break
            start += len(block)
            READ.inc(len(block))
            yield block
    yield b""


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield

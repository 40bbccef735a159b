"""Deciding how a data set travels: inside its message, or through the bucket."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from nats.js import JetStreamContext

from imaging_services.adapters.nats.relay_objects import ObjectBucket, new_name

_SMALL = 1024 * 1024  # bytes that every store may hold in memory
_LARGE_AT_A_TIME = 8  # stores that may hold more, up to the inline limit


@dataclass(frozen=True, slots=True)
class Staged:
    """A data set ready to travel: ``payload``, or the object of ``bucket``; size in bytes and hex SHA-256."""

    payload: bytes
    size: int
    digest: str
    bucket: ObjectBucket
    object_name: str | None = None


class Staging:
    """Reads data sets up to the inline limit into memory and streams longer ones to the bucket as they arrive.

    Only a few at a time may hold more than 1 MiB; while they do, others go through the bucket earlier, so that
    memory does not follow the number of associations.
    """

    def __init__(self) -> None:
        self._large = 0

    @asynccontextmanager
    async def stage(
        self,
        js: JetStreamContext,
        bucket_name: str,
        data: AsyncIterable[bytes],
        limit: int,
        timeout: float,
        prepare: Callable[[], Awaitable[None]],
    ) -> AsyncIterator[Staged]:
        """``limit`` is the longest payload in bytes, ``timeout`` seconds for each answer of the server; ``prepare``
        makes the bucket exist. Raises a RetryableError, or what ``data`` raises: nothing is left behind then."""
        bucket = ObjectBucket(js, bucket_name, timeout)
        blocks, source = _Blocks(), aiter(data)
        large = False
        try:
            async for block in source:
                blocks.add(block)
                if blocks.size > _SMALL and not large and self._large < _LARGE_AT_A_TIME:
                    large = True
                    self._large += 1
                if blocks.size > (limit if large else min(limit, _SMALL)):
                    break
            else:
                yield Staged(blocks.payload(), blocks.size, blocks.digest.hexdigest(), bucket)
                return
            if large:
                large = False
                self._large -= 1
            await prepare()
            name = new_name()
            written = await bucket.put(name, _chain(blocks.take(), source))
            yield Staged(b"", written.size, written.digest, bucket, name)
        finally:
            if large:
                self._large -= 1


class _Blocks:
    def __init__(self) -> None:
        self._blocks: list[bytes] = []
        self.size = 0
        self.digest = hashlib.sha256()

    def add(self, block: bytes) -> None:
        self._blocks.append(bytes(block))
        self.size += len(block)
        self.digest.update(block)

    def payload(self) -> bytes:
        payload = b"".join(self.take())
        self.size = len(payload)
        return payload

    def take(self) -> list[bytes]:
        blocks, self._blocks = self._blocks, []
        return blocks


async def _chain(first: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    first.reverse()
    while first:
        yield first.pop()
    async for block in rest:
        yield block

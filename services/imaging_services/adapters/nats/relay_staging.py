"""Deciding how a data set travels: inside its message, or through the bucket."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from nats.js import JetStreamContext

from imaging_services.adapters.nats.relay_compression import Compressor
from imaging_services.adapters.nats.relay_objects import ObjectBucket, new_name

_SMALL = 1024 * 1024  # bytes that every store may hold in memory
_LARGE_AT_A_TIME = 8  # stores that may hold more, up to the inline limit


@dataclass(frozen=True, slots=True)
class Staged:
    """A data set ready to travel: ``payload``, or the object of ``bucket``; size in bytes and hex SHA-256 of the
    original, and how it is compressed, if at all."""

    payload: bytes
    size: int
    digest: str
    bucket: ObjectBucket
    object_name: str | None = None
    encoding: str | None = None


class Staging:
    """Reads data sets up to the inline limit into memory and streams longer ones to the bucket as they arrive.

    Only a few at a time may hold more than 1 MiB; while they do, others go through the bucket earlier, so that
    memory does not follow the number of associations.
    """

    def __init__(self, compressor: Compressor | None = None) -> None:
        self._compressor, self._large = compressor, 0

    @asynccontextmanager
    async def stage(
        self,
        js: JetStreamContext,
        bucket_name: str,
        data: AsyncIterable[bytes],
        transfer_syntax: str,
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
                yield await self._inline(blocks, bucket, transfer_syntax)
                return
            if large:
                large = False
                self._large -= 1
            await prepare()
            yield await self._in_bucket(blocks, source, bucket, transfer_syntax)
        finally:
            if large:
                self._large -= 1

    async def _inline(self, blocks: "_Blocks", bucket: ObjectBucket, transfer_syntax: str) -> Staged:
        size, digest, payload = blocks.size, blocks.digest.hexdigest(), blocks.payload()
        compressor = self._compressor
        if compressor is not None and (encoding := compressor.encoding(transfer_syntax, payload)):
            packed = await compressor.packed(payload, encoding)
            if packed is not None:
                return Staged(packed, size, digest, bucket, encoding=encoding)
        return Staged(payload, size, digest, bucket)

    async def _in_bucket(
        self, blocks: "_Blocks", source: AsyncIterator[bytes], bucket: ObjectBucket, transfer_syntax: str
    ) -> Staged:
        name, compressor, first, encoding = new_name(), self._compressor, blocks.take(), None
        original = blocks.counted(first, source)
        if compressor is not None and (encoding := compressor.encoding(transfer_syntax, b"".join(first))):
            original = compressor.packing(original, encoding)
        await bucket.put(name, original)
        return Staged(b"", blocks.size, blocks.digest.hexdigest(), bucket, name, encoding)


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

    async def counted(self, first: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Those that were taken, and the rest, which count here too."""
        first.reverse()
        while first:
            yield first.pop()
        async for block in rest:
            self.size += len(block)
            self.digest.update(block)
            yield block

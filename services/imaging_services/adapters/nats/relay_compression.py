"""Data sets compressed on their way, where that makes them smaller. Size and digest are always those of the original.

Zstandard (RFC 8878), without loss. Pixels of 16 bits become shorter when their high bytes, which are much alike, are
put together: of each mebibyte first the bytes at even places, then those at odd places. What is compressed already is
left alone: encapsulated pixel data, deflated data sets, and whatever does not shrink.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import zstandard

from imaging_services.adapters.nats.relay_objects import ObjectBucket
from imaging_services.domain.dicom.transfer_syntaxes import is_deflated, is_encapsulated
from imaging_services.domain.errors import RetryableError
from imaging_services.domain.relay.checked import checked, single
from imaging_services.domain.relay.messages import StoreMessage
from imaging_services.domain.relay.ports import DataSource

ZSTD, SPLIT = "zstd", "split16+zstd"
"""Values of ``StoreMessage.encoding``; without one the data set is as it was received."""

_BLOCK = 1024 * 1024  # bytes; what SPLIT divides
_WORTH = 0.9  # of the original size at most
_SHORTEST = 4096  # bytes; shorter data sets are left alone
_PROBE = 64 * 1024
_OFF_LOOP = 256 * 1024  # bytes from which on the work is worth a thread


class Compressor:
    """``level`` is Zstandard's; 1 takes some 250 MB/s of CT on one core."""

    def __init__(self, level: int) -> None:
        self._level = level

    def encoding(self, transfer_syntax: str, beginning: bytes) -> str | None:
        """The encoding in which a data set that begins like this is shortest, as far as a piece of it tells; None when
        it is not worth it."""
        if len(beginning) < _SHORTEST or is_encapsulated(transfer_syntax) or is_deflated(transfer_syntax):
            return None
        middle = max(len(beginning) // 2 - _PROBE // 2, 0)
        piece = beginning[middle : middle + _PROBE]
        size, best = min((len(self._packed(piece, encoding)), encoding) for encoding in (ZSTD, SPLIT))
        return best if size <= _WORTH * len(piece) else None

    async def packed(self, data: bytes, encoding: str) -> bytes | None:
        """The data set compressed; None when it is not worth it."""
        packed = await _worked(self._packed, data, encoding)
        return packed if len(packed) <= _WORTH * len(data) else None

    async def packing(self, blocks: AsyncIterator[bytes], encoding: str) -> AsyncIterator[bytes]:
        """The same block by block."""
        packer, waiting = zstandard.ZstdCompressor(self._level).compressobj(), bytearray()

        def pack(block: bytes) -> bytes:
            return packer.compress(_split(block) if encoding == SPLIT else block)

        async for data in blocks:
            waiting += data
            while len(waiting) >= _BLOCK:
                if packed := await _worked(pack, bytes(waiting[:_BLOCK])):
                    yield packed
                del waiting[:_BLOCK]
        yield await _worked(pack, bytes(waiting)) + packer.flush()

    def _packed(self, data: bytes, encoding: str) -> bytes:
        if encoding == SPLIT:
            data = b"".join(_split(data[start : start + _BLOCK]) for start in range(0, len(data), _BLOCK))
        return zstandard.ZstdCompressor(self._level).compress(data)


def content(store: StoreMessage, bucket: ObjectBucket, payload: bytes) -> DataSource:
    """The data set of a message as it was received, wherever it is; proved at its end."""
    name = store.object_name
    source = (lambda: bucket.read(name)) if name else single(payload)
    return checked(store, _unpacked(source, store) if store.encoding else source)


def _unpacked(source: DataSource, store: StoreMessage) -> DataSource:
    """What was compressed as it was. The source raises ``RetryableError`` for what is damaged, or longer than it
    should be."""

    async def blocks() -> AsyncIterator[bytes]:
        if store.encoding not in (ZSTD, SPLIT):
            raise RetryableError(f"a data set in encoding {store.encoding!r}, which this end does not know")
        unpacked = _decompressed(source, store.size)
        if store.encoding == ZSTD:
            async for data in unpacked:
                yield data
            return
        waiting = bytearray()
        async for data in unpacked:
            waiting += data
            while len(waiting) >= _BLOCK:
                yield await _worked(_joined, bytes(waiting[:_BLOCK]))
                del waiting[:_BLOCK]
        yield await _worked(_joined, bytes(waiting))

    return blocks


async def _decompressed(source: DataSource, size: int) -> AsyncIterator[bytes]:
    unpacker, left = zstandard.ZstdDecompressor().decompressobj(), size
    async for block in source():
        for start in range(0, len(block), _OFF_LOOP):
            try:
                data = await _worked(unpacker.decompress, block[start : start + _OFF_LOOP])
            except zstandard.ZstdError as error:
                raise RetryableError(f"relayed data set arrived damaged: {error}") from None
            left -= len(data)
            if left < 0:
                raise RetryableError("relayed data set arrived damaged: it is longer than announced")
            if data:
                yield data


def _split(block: bytes) -> bytes:
    return block[::2] + block[1::2]


def _joined(split: bytes) -> bytes:
    block, half = bytearray(len(split)), (len(split) + 1) // 2
    block[::2], block[1::2] = split[:half], split[half:]
    return bytes(block)


async def _worked(work: Callable[..., bytes], data: bytes, *more: str) -> bytes:
    """In a thread when there is much of it; Zstandard lets go of the interpreter lock."""
    return await asyncio.to_thread(work, data, *more) if len(data) >= _OFF_LOOP else work(data, *more)

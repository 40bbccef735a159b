"""Proof that a data set arrived as it was sent."""

import hashlib
from collections.abc import AsyncIterator

from imaging_services.domain.errors import RetryableError
from imaging_services.domain.relay.messages import StoreMessage
from imaging_services.domain.relay.ports import DataSource


def checked(message: StoreMessage, source: DataSource) -> DataSource:
    """The same data set, which raises ``RetryableError`` at its end when length or SHA-256 differ from what was
    announced."""

    async def blocks() -> AsyncIterator[bytes]:
        digest, size = hashlib.sha256(), 0
        async for block in source():
            digest.update(block)
            size += len(block)
            yield block
        if size != message.size or digest.hexdigest() != message.digest:
            raise RetryableError(f"relayed data set arrived damaged: {size} bytes of {message.size}, or another digest")

    return blocks


def single(payload: bytes) -> DataSource:
    """One block as a data set; none when it is empty."""

    async def blocks() -> AsyncIterator[bytes]:
        if payload:
            yield payload

    return blocks

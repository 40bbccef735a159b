"""Data sets of requests and responses that no message holds: a request's goes through the bucket, a response's in
parts, each of which counts as a response in the flow control."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

from nats.aio.client import Client

from imaging_services.adapters.nats.relay_objects import CHUNK, ObjectBucket, new_name
from imaging_services.adapters.nats.relay_settings import RelaySettings
from imaging_services.domain.errors import InvalidInput, RetryableError
from imaging_services.domain.relay.identifier import LONGEST_RELAYED
from imaging_services.domain.relay.messages import H_DIGEST, H_DOMAIN, H_OBJECT, H_SIZE, Headers, header, number


@asynccontextmanager
async def placed(bucket: ObjectBucket, data: bytes) -> AsyncIterator[dict[str, str]]:
    """Put a request's data set into the bucket for the length of the block; gives the headers that name it. Raises as
    ``ObjectBucket.put`` does."""
    name = new_name()
    await bucket.put(name, _blocks(data))
    try:
        yield {H_OBJECT: name, H_SIZE: str(len(data)), H_DIGEST: hashlib.sha256(data).hexdigest()}
    finally:
        await bucket.discard(name)


def bucket_of(client: Client, settings: RelaySettings, headers: Headers) -> ObjectBucket:
    """Where the object is that a message to this end may name."""
    js = client.jetstream(domain=headers.get(H_DOMAIN) or settings.sole_receive_domain)
    return ObjectBucket(js, settings.receives.bucket, settings.silence_seconds)


async def fetched(bucket: ObjectBucket, headers: Headers, payload: bytes) -> bytes:
    """A request's data set, from where it is. Raises ``RetryableError`` when it arrived damaged."""
    name = headers.get(H_OBJECT)
    if name is None:
        return payload
    if number(headers, H_SIZE) > LONGEST_RELAYED:
        raise InvalidInput(f"a data set of {number(headers, H_SIZE)} bytes is too large to be relayed")
    blocks = [block async for block in bucket.read(name)]
    data = b"".join(blocks)
    if len(data) != number(headers, H_SIZE) or hashlib.sha256(data).hexdigest() != header(headers, H_DIGEST):
        raise RetryableError(f"relayed data set arrived damaged: {len(data)} bytes")
    return data


def parts(data: bytes, most: int) -> Iterator[bytes]:
    """What goes ahead of a response's message, and at last what goes into it, each of at most so many bytes."""
    size = max(min(CHUNK, most), 1)
    for start in range(0, max(len(data), 1), size):
        yield data[start : start + size]


async def _blocks(data: bytes) -> AsyncIterator[bytes]:
    yield data

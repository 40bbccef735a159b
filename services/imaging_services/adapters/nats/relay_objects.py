"""Data sets too large for a message, as objects of a JetStream bucket (ADR-20).

nats-py's own object store waits for each chunk's acknowledgement in turn and reads through a push subscription that
may buffer 256 MiB; here a bounded window is on its way in both directions, so that memory does not follow the size.
"""

import asyncio
import base64
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

import nats.errors
import structlog
from nats.aio.client import Client
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NotFoundError

from imaging_services.adapters.nats.connection import nats_errors, while_connected
from imaging_services.adapters.nats.relay_inbox import Inbox, open_inbox
from imaging_services.domain.errors import BackendUnavailable, ImagingError, NotFound

log = structlog.get_logger(__name__)

CHUNK = 512 * 1024
_WINDOW = 8  # chunks on their way
_READERS = 8  # that have asked for chunks at a time
_FAST, _SLOW = 0.5, 2.0  # seconds in which a reader's chunks come, when it may ask for more or had better for fewer
_INACTIVE = 300.0  # seconds after which the server forgets a reader that vanished


@dataclass(frozen=True, slots=True)
class Written:
    """Length in bytes and hex SHA-256 of an object."""

    size: int
    digest: str


def new_name() -> str:
    """A name that begins with its time of birth, so that age needs no look-up."""
    return f"{time.time_ns() // 1_000_000:012x}-{secrets.token_hex(10)}"


def age_of(name: str) -> float:
    """Seconds since the name was made; 0 for a name of another kind, which is thus left alone."""
    born, dash, _ = name.partition("-")
    try:
        return time.time() - int(born, 16) / 1000 if dash else 0.0
    except ValueError:
        return 0.0


class ObjectBucket:
    """One bucket. ``timeout`` is the wait for each answer of the server, seconds."""

    def __init__(self, js: JetStreamContext, bucket: str, timeout: float) -> None:
        self._js, self._bucket, self._stream, self._timeout = js, bucket, f"OBJ_{bucket}", timeout
        self._ahead = 2  # chunks each reader asks for; many readers share one line
        self._asking = asyncio.Semaphore(_READERS)

    def _chunks(self, name: str) -> str:
        return f"$O.{self._bucket}.C.{name}"

    def _meta(self, name: str) -> str:
        return f"$O.{self._bucket}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"

    async def put(self, name: str, data: AsyncIterable[bytes]) -> Written:
        """Store an object; durable on return, and removed again when anything fails, as far as that is possible.

        Raises ``OutOfResources`` when the bucket is full, another RetryableError, or what ``data`` raises.
        """
        try:
            with nats_errors("writing to the relay's bucket"):
                return await self._put(name, data)
        except BaseException as error:
            if isinstance(error, Exception):
                await self.discard(name)
            raise

    async def _put(self, name: str, data: AsyncIterable[bytes]) -> Written:
        digest, size, count = hashlib.sha256(), 0, 0
        client = self._js._nc  # the context keeps its connection to itself
        async with open_inbox(client) as acks:
            window = _Window(client, self._chunks(name), acks, self._timeout)
            async for chunk in _rechunked(data):
                digest.update(chunk)
                size += len(chunk)
                count += 1
                await window.send(chunk)
            await window.finish()
        await self._js.publish(
            self._meta(name),
            self._meta_document(name, size, count, digest.digest()),
            headers={api.Header.ROLLUP: "sub"},
            stream=self._stream,
            timeout=self._timeout,
        )
        return Written(size, digest.hexdigest())

    def _meta_document(self, name: str, size: int, chunks: int, digest: bytes) -> bytes:
        document = {
            "name": name,
            "bucket": self._bucket,
            "nuid": name,
            "size": size,
            "chunks": chunks,
            "mtime": datetime.now(UTC).isoformat(),
            "digest": "SHA-256=" + base64.urlsafe_b64encode(digest).decode(),
            "options": {"max_chunk_size": CHUNK},
        }
        return json.dumps(document).encode()

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """The object's chunks. Raises ``NotFound`` when there is no such object, or a RetryableError."""
        with nats_errors("reading from the relay's bucket"):
            client = self._js._nc
            reconnects = client.stats["reconnects"]
            remaining = await self._count(name)
            reader = f"read-{secrets.token_hex(10)}"
            await self._js.add_consumer(
                self._stream,
                api.ConsumerConfig(
                    name=reader,
                    filter_subject=self._chunks(name),
                    ack_policy=api.AckPolicy.NONE,
                    mem_storage=True,
                    inactive_threshold=_INACTIVE,
                ),
            )
            subscription = await self._js.pull_subscribe_bind(consumer=reader, stream=self._stream)
            try:
                while remaining > 0:
                    # The server has forgotten the reader when it comes back.
                    async with self._asking:
                        asked, began = min(self._ahead, remaining), time.monotonic()
                        fetching = subscription.fetch(asked, timeout=self._timeout)
                        try:
                            messages = await while_connected(client, fetching, reconnects)
                        except nats.errors.TimeoutError:
                            self._ahead = 1
                            raise
                        self._took(asked, time.monotonic() - began)
                    for message in messages:
                        remaining -= 1
                        yield message.data
            finally:
                await self._forget(subscription, reader)

    def _took(self, chunks: int, seconds: float) -> None:
        """What readers ask for follows the line: what is asked for has to come within the time for an answer."""
        if seconds > _SLOW:
            self._ahead = max(min(self._ahead, chunks) // 2, 1)
        elif seconds < _FAST and chunks == self._ahead:
            self._ahead = min(2 * self._ahead, _WINDOW)

    async def _forget(self, subscription: JetStreamContext.PullSubscription, reader: str) -> None:
        try:
            await subscription.unsubscribe()
            await self._js.delete_consumer(self._stream, reader)
        except (nats.errors.Error, OSError) as error:
            # The server forgets an idle reader by itself.
            log.debug("reader not removed", bucket=self._bucket, error=str(error))

    async def _count(self, name: str) -> int:
        try:
            message = await self._js.get_last_msg(self._stream, self._meta(name))
        except NotFoundError as error:
            raise NotFound(f"the relay's bucket {self._bucket} has no object {name}") from error
        return int(json.loads(message.data or b"{}")["chunks"])

    async def delete(self, name: str) -> None:
        """Remove an object; absent is fine. Raises a RetryableError."""
        with nats_errors("removing from the relay's bucket"):
            await self._js.purge_stream(self._stream, subject=self._meta(name))
            await self._js.purge_stream(self._stream, subject=self._chunks(name))

    async def discard(self, name: str) -> None:
        """Remove an object that nobody will miss; what cannot be removed now is left to the janitor."""
        try:
            await self.delete(name)
        except ImagingError as error:
            log.info("object left to the janitor", bucket=self._bucket, object=name, error=str(error))

    async def names(self) -> list[str]:
        """Names of all objects, whole or not. Raises a RetryableError."""
        prefix = self._chunks("")
        with nats_errors("listing the relay's bucket"):
            state = (await self._js.stream_info(self._stream, subjects_filter=prefix + ">")).state
        return [subject.removeprefix(prefix) for subject in (state.subjects or {})]


class _Window:
    """Chunks published but not yet acknowledged. The acknowledgements come to one inbox, in the chunks' order.

    Not nats-py's ``publish_async``: its futures never end when the stream refuses a message (nats-py 2.16).
    """

    def __init__(self, client: Client, subject: str, acks: Inbox, timeout: float) -> None:
        self._client, self._subject, self._acks, self._timeout = client, subject, acks, timeout
        self._pending = self._last = 0

    async def send(self, chunk: bytes) -> None:
        if self._pending >= _WINDOW:
            await self._acknowledged()
        await self._client.publish(self._subject, chunk, reply=self._acks.subject)
        self._pending += 1

    async def finish(self) -> None:
        while self._pending:
            await self._acknowledged()

    async def _acknowledged(self) -> None:
        message = await self._acks.next_here(self._timeout)
        if (message.headers or {}).get(api.Header.STATUS) == "503":
            raise BackendUnavailable(f"no stream takes {self._subject}")
        answer = json.loads(message.data)
        if "error" in answer:
            raise APIError.from_error(answer["error"])
        if answer["seq"] <= self._last:
            raise BackendUnavailable("the relay's bucket stored chunks out of order")
        self._last = answer["seq"]
        self._pending -= 1


async def _rechunked(data: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    buffer = bytearray()
    async for block in data:
        buffer += block
        while len(buffer) >= CHUNK:
            yield bytes(buffer[:CHUNK])
            del buffer[:CHUNK]
    if buffer:
        yield bytes(buffer)

"""The near side of the relay: stores and requests on their way to the other end."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api
from nats.js.errors import NoStreamResponseError

from imaging_services.adapters.nats.connection import nats_errors, while_connected
from imaging_services.adapters.nats.liveness import Exchange
from imaging_services.adapters.nats.relay_compression import Compressor
from imaging_services.adapters.nats.relay_events import heard, reported
from imaging_services.adapters.nats.relay_homes import Homes
from imaging_services.adapters.nats.relay_inbox import open_inbox
from imaging_services.adapters.nats.relay_large import bucket_of, fetched, placed
from imaging_services.adapters.nats.relay_objects import ObjectBucket
from imaging_services.adapters.nats.relay_progress import Progress, Reply
from imaging_services.adapters.nats.relay_settings import RelaySettings
from imaging_services.adapters.nats.relay_staging import Staged, Staging
from imaging_services.adapters.nats.relay_streams import ensure_relay
from imaging_services.adapters.nats.relay_sub_operations import performed
from imaging_services.adapters.nats.relay_urgent import UrgentQueue
from imaging_services.domain.dicom.command_set import STATUS
from imaging_services.domain.dicom.dimse import (
    PENDING,
    AssociationRequest,
    Cancellation,
    DimseResponse,
    Negotiated,
    Rejection,
    StoreAnswer,
)
from imaging_services.domain.dicom.storage_scp import StorageScp
from imaging_services.domain.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    ImagingError,
    InvalidInput,
    OutOfResources,
)
from imaging_services.domain.relay.messages import (
    H_COMMAND,
    H_DOMAIN,
    H_ERROR,
    H_KIND,
    H_REQUEST,
    H_SEQUENCE,
    H_SILENCE,
    H_WORKER,
    AssociationNotice,
    Call,
    ReplyKind,
    StoreMessage,
    decode_command,
    error_from,
    header,
    number,
)
from imaging_services.domain.relay.negotiation import decode_outcome, encode_request
from imaging_services.domain.relay.ports import EventHandler

log = structlog.get_logger(__name__)

_HEADER_ROOM = 32 * 1024
_TAKEN_SECONDS = 5.0  # in which the far side says that it has taken a request, whatever the work takes then
_BUSY_PAUSES = (0.1, 0.25, 0.5, 1.0)  # seconds between tries of a request that has no room; the last repeats
_CONFIRMED_INLINE = 1024 * 1024  # core NATS has no flow control: waiting messages must stay small


class NatsRelayLink:
    """This end speaking to the other, see ``domain.relay.ports.RelayLink``. ``client`` returns the connection, or
    raises ``BackendUnavailable`` while there is none."""

    def __init__(self, settings: RelaySettings, client: Callable[[], Client]) -> None:
        self._settings, self._client = settings, client
        self._subjects = settings.sends
        self._silence = settings.silence_seconds
        level = settings.compression_level
        self._staging = Staging(Compressor(level) if level is not None else None)
        self._homes = Homes(settings.sends)
        self._own_domain = settings.send_domain
        self._urgent = UrgentQueue(settings.sends, settings.send_domain)

    async def store_durably(self, call: Call, data: AsyncIterable[bytes], *, urgent: bool = False) -> None:
        """See the port."""
        client, subjects = self._client(), self._subjects
        js = client.jetstream(domain=self._settings.send_domain)
        limit = min(self._settings.inline_limit, client.max_payload - _HEADER_ROOM)
        urgent = urgent and await self._urgent.takes(client, call.origin.association_id)
        async with self._staged(js, call, data, limit) as (message, staged):
            message = replace(message, urgent=urgent)
            name = subjects.urgent if urgent else subjects.store
            stream = subjects.urgent_stream if urgent else subjects.stream
            subject = name(call.origin.association_id, message.object_name)
            try:
                await self._publish(js, stream, subject, staged.payload, message.headers(), message.message)
            except OutOfResources:
                # Refused for certain, so no message names the object; after any other error one may.
                if staged.object_name:
                    await staged.bucket.discard(staged.object_name)
                raise

    async def store_confirmed(self, call: Call, data: AsyncIterable[bytes]) -> StoreAnswer:
        """See the port."""
        client = self._client()
        js = client.jetstream(domain=self._settings.send_domain)
        limit = min(self._settings.inline_limit, client.max_payload - _HEADER_ROOM, _CONFIRMED_INLINE)
        async with self._staged(js, call, data, limit) as (message, staged):
            try:
                headers = message.headers() | {H_SILENCE: f"{self._silence:g}"}
                if staged.object_name:
                    headers |= await self._bucket_domain()
                async with self._replies(self._subjects.confirm, headers, staged.payload) as replies:
                    async for reply in replies:
                        return StoreAnswer.of(decode_command(header(reply.message.headers or {}, H_COMMAND)))
                raise BackendUnavailable("the far side ended a C-STORE without a status")
            finally:
                if staged.object_name:
                    await staged.bucket.discard(staged.object_name)

    async def request(
        self,
        call: Call,
        data: bytes | None = None,
        cancellation: Cancellation | None = None,
        requestor: StorageScp | None = None,
    ) -> AsyncIterator[DimseResponse]:
        """See the port."""
        request_id = uuid.uuid4().hex
        headers = call.headers() | {H_REQUEST: request_id, H_SILENCE: f"{self._silence:g}"}
        progress = Progress(self._client, self._subjects.control(request_id))
        async with AsyncExitStack() as stack:
            payload, more = await self._carried(stack, data or b"")
            replies = await stack.enter_async_context(self._replies(self._homes.of(call), headers | more, payload))
            gone = requestor is not None
            await stack.enter_async_context(progress.told(self._silence / 3, cancellation, gone=gone))
            if requestor is not None:
                replies = await stack.enter_async_context(performed(replies, requestor, progress))
            parts: list[bytes] = []
            async for reply in replies:
                if reply.kind is ReplyKind.END:
                    progress.finished = True
                    return
                progress.take()
                parts.append(reply.message.data)
                if reply.kind is ReplyKind.RESPONSE:
                    self._homes.learn(call, (reply.message.headers or {}).get(H_WORKER))
                    command = decode_command(header(reply.message.headers or {}, H_COMMAND))
                    progress.finished = command.number(STATUS, 0) not in PENDING  # nothing is left to be cancelled
                    yield DimseResponse(command, b"".join(parts) if command.has_data_set else None)
                    parts = []
                await progress.tell_if_due()

    async def negotiate(self, request: AssociationRequest) -> Negotiated | Rejection:
        """See the port."""
        headers = {H_SILENCE: f"{self._silence:g}"}
        async with self._replies(self._subjects.negotiate, headers, encode_request(request)) as replies:
            async for reply in replies:
                return decode_outcome(reply.message.data)
        raise BackendUnavailable("the far side ended a negotiation without an outcome")

    def hearing(self, association_id: str, handler: EventHandler) -> AbstractAsyncContextManager[None]:
        """See the port."""
        client, names = self._client(), self._settings.receives

        async def fetch(message: Msg) -> bytes:
            headers = message.headers or {}
            return await fetched(bucket_of(client, self._settings, headers), headers, message.data)

        subjects = [names.event(association_id), names.event(association_id, large=True)]
        return heard(client, subjects, fetch, handler)

    async def report(self, call: Call, data: bytes | None) -> DimseResponse:
        """See the port."""
        async with AsyncExitStack() as stack:
            payload, more = await self._carried(stack, data or b"")
            subject = self._subjects.event(call.origin.association_id, large=bool(more))
            return await reported(self._client(), subject, call, payload, more, self._silence)

    async def announce(self, notice: AssociationNotice) -> None:
        """See the port."""
        try:
            with nats_errors("announcing an association"):
                await self._client().publish(self._subjects.association, headers=notice.headers())
        except ImagingError as error:
            log.debug("association not announced", state=notice.state, error=str(error))

    async def finish(self, notice: AssociationNotice) -> None:
        """See the port."""
        association_id = notice.origin.association_id
        js = self._client().jetstream(domain=self._settings.send_domain)
        names, message_id = self._subjects, f"{association_id}.end"
        await self._publish(js, names.stream, names.end(association_id), b"", notice.headers(), message_id)

    async def _bucket_domain(self) -> dict[str, str]:
        """The header that says where the bucket is that a message names an object of; none where the server has no
        JetStream domain."""
        if self._own_domain is None:
            with nats_errors("asking NATS for its JetStream domain"):
                self._own_domain = (await self._client().jetstream().account_info()).domain or ""
        return {H_DOMAIN: self._own_domain} if self._own_domain else {}

    async def _carried(self, stack: AsyncExitStack, data: bytes) -> tuple[bytes, dict[str, str]]:
        """A request's payload, and the headers that say where else its data set is, for the length of the stack."""
        client, settings, subjects = self._client(), self._settings, self._subjects
        if len(data) <= min(client.max_payload - _HEADER_ROOM, _CONFIRMED_INLINE):
            return data, {}
        js = client.jetstream(domain=settings.send_domain)
        await ensure_relay(js, subjects, settings.stream_max_bytes, settings.stream_replicas)
        bucket = ObjectBucket(js, subjects.bucket, self._silence)
        return b"", await stack.enter_async_context(placed(bucket, data)) | await self._bucket_domain()

    @asynccontextmanager
    async def _staged(
        self, js: JetStreamContext, call: Call, data: AsyncIterable[bytes], limit: int
    ) -> AsyncIterator[tuple[StoreMessage, Staged]]:
        subjects, settings = self._subjects, self._settings

        async def prepare() -> None:
            await ensure_relay(js, subjects, settings.stream_max_bytes, settings.stream_replicas)

        stage = self._staging.stage(js, subjects.bucket, data, call.transfer_syntax, limit, self._silence, prepare)
        async with stage as staged:
            yield (
                StoreMessage(
                    call=call,
                    message=f"{call.origin.association_id}.{uuid.uuid4().hex}",
                    size=staged.size,
                    digest=staged.digest,
                    object_name=staged.object_name,
                    encoding=staged.encoding,
                ),
                staged,
            )

    async def _publish(
        self, js: JetStreamContext, stream: str, subject: str, payload: bytes, headers: dict[str, str], message_id: str
    ) -> None:
        """Put a message into the work queue, once: the server recognises ``message_id``."""
        headers = headers | {api.Header.MSG_ID: message_id}
        deadline, created = time.monotonic() + self._silence, False
        while True:
            try:
                with nats_errors("publishing to the relay's stream"):
                    publishing = js.publish(
                        subject,
                        payload,
                        headers=dict(headers),
                        stream=stream,
                        timeout=max(self._silence / 3, 0.1),
                    )
                    await while_connected(self._client(), publishing)
                    return
            except DeadlineExceeded:
                # The same id again: the server keeps one of them.
                self._client()
                if time.monotonic() > deadline:
                    raise
            except BackendUnavailable as error:
                if created or not isinstance(error.__cause__, NoStreamResponseError):
                    raise
                settings, created = self._settings, True
                await ensure_relay(js, self._subjects, settings.stream_max_bytes, settings.stream_replicas)

    @asynccontextmanager
    async def _replies(
        self, subject: str, headers: dict[str, str], payload: bytes
    ) -> AsyncIterator[AsyncIterator[Reply]]:
        client = self._client()
        with nats_errors(f"asking {subject}"):
            async with open_inbox(client) as inbox:
                taken = min(_TAKEN_SECONDS, self._silence)
                exchange = Exchange(client, subject, inbox, taken=taken, silence=self._silence)
                await exchange.ask(payload, headers)
                yield self._each_reply(subject, exchange, partial(exchange.ask, payload, headers))

    async def _each_reply(
        self, subject: str, exchange: Exchange, ask: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[Reply]:
        expected = busy = 0
        deadline = time.monotonic() + self._silence
        while True:
            reply = _reply(subject, await exchange.answer())
            if reply.kind is ReplyKind.BUSY:
                if time.monotonic() > deadline:
                    raise OutOfResources(f"{subject}: the far side had no room for {self._silence:g} s")
                await asyncio.sleep(_BUSY_PAUSES[min(busy, len(_BUSY_PAUSES) - 1)])
                busy += 1
                await ask()
                continue
            if (sequence := number(reply.message.headers or {}, H_SEQUENCE)) != expected:
                raise BackendUnavailable(f"{subject}: reply {sequence} came where {expected} was due")
            expected += 1
            yield reply
            if reply.kind is ReplyKind.END:
                return


def _reply(subject: str, message: Msg) -> Reply:
    headers = message.headers or {}
    try:
        kind = ReplyKind(header(headers, H_KIND))
    except ValueError as error:
        raise InvalidInput(f"{subject}: {error}") from error
    if kind is ReplyKind.FAILED:
        raise error_from(header(headers, H_ERROR), message.data.decode(errors="replace"))
    return Reply(kind, message)

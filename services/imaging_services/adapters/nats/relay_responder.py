"""The far side of what is not queued: confirmed stores, requests, negotiations and notices."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from imaging_services.adapters.nats.connection import nats_errors, reach_server
from imaging_services.adapters.nats.liveness import Room, SignsOfLife, open_signs
from imaging_services.adapters.nats.relay_caller import Caller, silence_of
from imaging_services.adapters.nats.relay_compression import content
from imaging_services.adapters.nats.relay_large import bucket_of, fetched, parts
from imaging_services.adapters.nats.relay_objects import ObjectBucket
from imaging_services.adapters.nats.relay_settings import RelaySettings
from imaging_services.adapters.nats.relay_sub_operations import DistantScp
from imaging_services.domain.dicom.dimse import Cancellation, DimseResponse, Status
from imaging_services.domain.dicom.storage_scp import StorageScp
from imaging_services.domain.errors import ImagingError
from imaging_services.domain.relay.messages import (
    H_COMMAND,
    H_ERROR,
    H_KIND,
    H_REQUEST,
    H_SEQUENCE,
    H_WORKER,
    AssociationNotice,
    Call,
    ReplyKind,
    StoreMessage,
    encode_command,
    header,
)
from imaging_services.domain.relay.negotiation import decode_request, encode_outcome
from imaging_services.domain.relay.ports import RelayHandler

log = structlog.get_logger(__name__)

_STORES_WAITING = 4  # confirmed stores at work or waiting, for each one that may be at work
_REQUESTS = 256  # other requests under way
_HEADER_ROOM = 32 * 1024  # of a message, bytes
_NOTICES = 1024  # notices of associations under way; one that is lost is repeated
_REQUEST_BYTES = 64 * 1024 * 1024  # what they may hold

Work = Callable[[Msg, SignsOfLife], Awaitable[None]]


class Responder:
    """Serves core NATS subjects of the own channel; queue groups give each message to one process. ``subscribed`` is
    set once the server knows."""

    def __init__(self, client: Client, settings: RelaySettings, handler: RelayHandler) -> None:
        self.subscribed = asyncio.Event()
        self._client, self._settings, self._handler = client, settings, handler
        self._subjects = settings.receives
        self._worker = uuid.uuid4().hex
        self._stores = asyncio.Semaphore(settings.max_in_flight)
        self._room_for_stores = Room(_STORES_WAITING * settings.max_in_flight, settings.max_in_flight_bytes)
        self._room_for_requests = Room(_REQUESTS, _REQUEST_BYTES)
        self._room_for_notices = Room(_NOTICES, _REQUEST_BYTES)

    async def run(self) -> None:
        """Serve until cancelled; what is at work is cancelled with it, and the near sides notice that."""
        subjects, group = self._subjects, self._subjects.worker
        async with AsyncExitStack() as stack:
            with nats_errors("subscribing to the relay"):
                signs = await stack.enter_async_context(open_signs(self._client))
            tasks = await stack.enter_async_context(asyncio.TaskGroup())

            def spawn(room: Room, work: Work) -> Callable[[Msg], Awaitable[None]]:
                async def callback(message: Msg) -> None:
                    if room.take(len(message.data)):
                        task = tasks.create_task(self._guarded(work, message, signs))
                        task.add_done_callback(lambda _: room.give(len(message.data)))
                    else:
                        await self._refuse(message)

                return callback

            with nats_errors("subscribing to the relay"):
                for subject, queue, room, work in (
                    (subjects.confirm, group, self._room_for_stores, self._confirm),
                    (subjects.request, group, self._room_for_requests, self._serve),
                    (subjects.request_to(self._worker), "", self._room_for_requests, self._serve),
                    (subjects.negotiate, group, self._room_for_requests, self._negotiate),
                    (subjects.association, "", self._room_for_notices, self._notice),
                ):
                    subscription = await self._client.subscribe(subject, queue, spawn(room, work))
                    stack.push_async_callback(self._unsubscribe, subscription)
                await reach_server(self._client)
                self.subscribed.set()
            await asyncio.Event().wait()

    async def _unsubscribe(self, subscription: Subscription) -> None:
        if not self._client.is_closed:
            await subscription.unsubscribe()

    async def _refuse(self, message: Msg) -> None:
        """There is no room: the near side asks again. A notice has no reply subject, and comes again by itself."""
        log.debug("no room for a relayed message", subject=message.subject)
        if message.reply:
            await self._client.publish(message.reply, headers={H_KIND: ReplyKind.BUSY})

    async def _guarded(self, work: Work, message: Msg, signs: SignsOfLife) -> None:
        try:
            await work(message, signs)
        except Exception as error:  # noqa: BLE001 - one message must not end the service; the near side is answered
            log.warning("relayed message failed", subject=message.subject, error=f"{type(error).__name__}: {error}")
            await self._fail(message, error)

    async def _fail(self, message: Msg, error: Exception) -> None:
        if not message.reply or self._client.is_closed:
            return
        name = type(error).__name__ if isinstance(error, ImagingError) else "RetryableError"
        headers = {H_KIND: ReplyKind.FAILED, H_ERROR: name}
        await self._client.publish(message.reply, str(error).encode(), headers=headers)

    def _bucket(self, message: Msg) -> ObjectBucket:
        return bucket_of(self._client, self._settings, message.headers or {})

    async def _confirm(self, message: Msg, signs: SignsOfLife) -> None:
        store = StoreMessage.from_headers(message.headers or {})
        async with _working(message, signs), self._stores:
            answer = await self._handler.store(store, content(store, self._bucket(message), message.data))
        command = answer.to(store.call.command)
        await self._client.publish(
            message.reply,
            headers={H_KIND: ReplyKind.END, H_SEQUENCE: "0", H_COMMAND: encode_command(command)},
        )

    async def _negotiate(self, message: Msg, signs: SignsOfLife) -> None:
        request = decode_request(message.data)
        async with _working(message, signs):
            outcome = await self._handler.negotiate(request)
        headers = {H_KIND: ReplyKind.END, H_SEQUENCE: "0"}
        await self._client.publish(message.reply, encode_outcome(outcome), headers=headers)

    async def _notice(self, message: Msg, _: SignsOfLife) -> None:
        await self._handler.noticed(AssociationNotice.from_headers(message.headers or {}))

    async def _serve(self, message: Msg, signs: SignsOfLife) -> None:
        headers = message.headers or {}
        call = Call.from_headers(headers)
        cancellation = Cancellation()
        caller = Caller(silence_of(headers), cancellation)
        control = self._subjects.control(header(headers, H_REQUEST))
        subscription = await self._client.subscribe(control, cb=caller.heard)
        try:
            async with _working(message, signs):
                data = await fetched(self._bucket(message), headers, message.data)
                answering = asyncio.create_task(self._answer(message, call, data, caller))
                leaving = asyncio.create_task(caller.left())
                try:
                    await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    leaving.cancel()
                    finished = answering.done()
                    answering.cancel()
                    outcome = (await asyncio.gather(answering, return_exceptions=True))[0]
            if not finished:
                log.info("relayed request stopped", association=call.origin.association_id, why=caller.why)
                if cancellation.requested:
                    await self._cancelled(message, call, caller)
            elif isinstance(outcome, Exception):
                raise outcome
        finally:
            if not self._client.is_closed:
                await subscription.unsubscribe()

    async def _answer(self, message: Msg, call: Call, data: bytes, caller: Caller) -> None:
        requestor = self._requestor(message, call, caller)
        identifier = data if call.command.has_data_set else None
        responses = self._handler.serve(call, identifier, caller.cancellation, requestor)
        async with aclosing(responses) as answers:  # type: ignore[type-var]  # a generator behind its port
            async for response in answers:
                await self._respond(message, response, caller)
        await self._client.publish(message.reply, headers={H_KIND: ReplyKind.END, H_SEQUENCE: str(caller.sent)})

    def _requestor(self, message: Msg, call: Call, caller: Caller) -> StorageScp | None:
        if call.takes is None:
            return None

        async def send(block: bytes, headers: dict[str, str]) -> None:
            await self._client.publish(message.reply, block, headers=headers)

        return DistantScp(send, caller, call.takes, self._client.max_payload - _HEADER_ROOM)

    async def _respond(self, message: Msg, response: DimseResponse, caller: Caller) -> None:
        *ahead, last = parts(response.data or b"", self._client.max_payload - _HEADER_ROOM)
        for part in ahead:
            await caller.response_credit()
            headers = {H_KIND: ReplyKind.PART, H_SEQUENCE: caller.number()}
            await self._client.publish(message.reply, part, headers=headers)
        await caller.response_credit()
        headers = {H_KIND: ReplyKind.RESPONSE, H_SEQUENCE: caller.number(), H_WORKER: self._worker}
        headers[H_COMMAND] = encode_command(response.command)
        await self._client.publish(message.reply, last, headers=headers)

    async def _cancelled(self, message: Msg, call: Call, caller: Caller) -> None:
        """The handler does not handle a cancellation itself: it was stopped, and this is its final response."""
        command = encode_command(call.command.response(Status.CANCEL))
        headers = {H_KIND: ReplyKind.RESPONSE, H_SEQUENCE: str(caller.sent), H_COMMAND: command}
        await self._client.publish(message.reply, headers=headers)
        await self._client.publish(message.reply, headers={H_KIND: ReplyKind.END, H_SEQUENCE: str(caller.sent + 1)})


def _working(message: Msg, signs: SignsOfLife) -> AbstractAsyncContextManager[None]:
    """Say that work is under way, at once and at intervals, so that the near side's time-out counts silence."""
    return signs.given(message.reply, silence_of(message.headers or {}) / 3)

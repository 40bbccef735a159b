"""The event processor's side of handing in events over NATS: answers each request when the event is recorded."""

import asyncio
from collections.abc import Awaitable, Callable

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from imaging_services.adapters.nats.connection import nats_errors, reach_server
from imaging_services.adapters.nats.liveness import Room, SignsOfLife, open_signs
from imaging_services.domain.errors import ImagingError, OutOfResources, RetryableError
from imaging_services.domain.events.attributes import encode_value
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.events.nats_binding import decode_nats
from imaging_services.domain.events.subjects import EventSubjects
from imaging_services.domain.relay.messages import H_SILENCE

log = structlog.get_logger(__name__)

ERROR_HEADER = "Imaging-Error"
_QUEUE = "event-processors"
_WAITING_MESSAGES = 16_384
_WAITING_BYTES = 256 * 1024 * 1024
_FIRST_SIGN = 0.25  # seconds; most events are recorded sooner


async def serve_ingress(
    client: Client,
    root: str,
    stream: str,
    handle: Callable[[CloudEvent], Awaitable[None]],
    *,
    concurrency: int = 512,
    started: asyncio.Event | None = None,
) -> None:
    """Hand each event to ``handle`` until cancelled; then take no more, and finish and answer those under way.

    Whether an event's document is JSON, ``handle`` finds out, since it reads it.

    An empty reply says that ``handle`` has returned: the event is recorded. Otherwise the reply's header
    ``Imaging-Error`` names the class of the error and its body is the sentence. A request with the header
    ``Imaging-Silence-Seconds`` gets signs of life while it waits, several within so many seconds. Several processors
    share the work. ``concurrency`` bounds the events in ``handle`` at once; as many as fit wait, others are refused
    for now. ``started`` is set when requests are heard.
    """
    hands, room = asyncio.Semaphore(concurrency), Room(_WAITING_MESSAGES, _WAITING_BYTES)
    under_way: set[asyncio.Task[None]] = set()
    with nats_errors("listening for events"):
        async with open_signs(client) as signs:

            async def on_message(message: Msg) -> None:
                if not room.take(len(message.data)):
                    error = OutOfResources("the event processor has no room for more events")
                    await _reply(client, message, *_refusal(error))
                    return
                task = asyncio.create_task(_take(client, message, handle, hands, signs))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                task.add_done_callback(lambda _: room.give(len(message.data)))

            subscription = await client.subscribe(
                EventSubjects(root, stream).ingress,
                queue=_QUEUE,
                cb=on_message,
                pending_msgs_limit=_WAITING_MESSAGES,
                pending_bytes_limit=_WAITING_BYTES,
            )
            await reach_server(client)
            log.info("listening for events", subject=subscription.subject)
            if started is not None:
                started.set()
            try:
                await asyncio.Event().wait()
            finally:
                if not client.is_closed:
                    await subscription.drain()  # type: ignore[no-untyped-call]
                await asyncio.gather(*under_way)


async def _take(
    client: Client,
    message: Msg,
    handle: Callable[[CloudEvent], Awaitable[None]],
    hands: asyncio.Semaphore,
    signs: SignsOfLife,
) -> None:
    every = _sign_every(message)
    if every is None:
        async with hands:
            outcome = await _outcome(message, handle)
    else:
        async with signs.given(message.reply, every, after=min(_FIRST_SIGN, every)), hands:
            outcome = await _outcome(message, handle)
    await _reply(client, message, *outcome)


def _sign_every(message: Msg) -> float | None:
    try:
        return max(float((message.headers or {})[H_SILENCE]) / 3, 0.1) if message.reply else None
    except (KeyError, ValueError):
        return None


async def _reply(client: Client, message: Msg, headers: dict[str, str] | None, body: bytes) -> None:
    if not message.reply:
        return
    try:
        await client.publish(message.reply, body, headers=headers)
    except (nats.errors.Error, OSError) as error:
        # The sender asks again: recording is idempotent.
        log.warning("event could not be answered", error=str(error))


async def _outcome(
    message: Msg, handle: Callable[[CloudEvent], Awaitable[None]]
) -> tuple[dict[str, str] | None, bytes]:
    try:
        await handle(decode_nats(message.headers, message.data, parsed_later=True))
    except ImagingError as error:
        log.warning("event refused", error=str(error), kind=type(error).__name__)
        return _refusal(error)
    except Exception as error:
        log.exception("event failed")
        return {ERROR_HEADER: RetryableError.__name__}, f"{type(error).__name__} in the event processor".encode()
    return None, b""


def _refusal(error: ImagingError) -> tuple[dict[str, str], bytes]:
    return {ERROR_HEADER: encode_value(type(error).__name__)}, str(error).encode()

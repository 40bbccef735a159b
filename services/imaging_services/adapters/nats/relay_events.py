"""Event reports from the far side over an association that is open at the near side (PS3.7 section 10.1.1)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from imaging_services.adapters.nats.connection import nats_errors, reach_server
from imaging_services.adapters.nats.relay_inbox import open_inbox
from imaging_services.domain.dicom.command_set import COMMAND_DATA_SET_TYPE, NO_DATA_SET, CommandSet
from imaging_services.domain.dicom.dimse import DimseResponse
from imaging_services.domain.errors import BackendUnavailable, ImagingError
from imaging_services.domain.relay.messages import (
    H_COMMAND,
    H_ERROR,
    H_KIND,
    Call,
    ReplyKind,
    decode_command,
    encode_command,
    error_from,
    header,
)
from imaging_services.domain.relay.ports import EventHandler

log = structlog.get_logger(__name__)

Fetch = Callable[[Msg], Awaitable[bytes]]
"""Gives the Event Information of a report, from where it is."""


@asynccontextmanager
async def heard(client: Client, subjects: Sequence[str], fetch: Fetch, handler: EventHandler) -> AsyncIterator[None]:
    """The near side: hand the reports that come to the handler, for the length of the block. Raises as NATS does."""

    async def answer(message: Msg) -> None:
        try:
            call = Call.from_headers(message.headers or {})
            response = await handler(call, await fetch(message) if call.command.has_data_set else None)
            headers = {H_KIND: str(ReplyKind.END), H_COMMAND: encode_command(response.command)}
            await client.publish(message.reply, response.data or b"", headers=headers)
        except asyncio.CancelledError:
            await _fail(client, message, BackendUnavailable("the association has ended"))
            raise
        except Exception as error:  # noqa: BLE001 - the far side is told, and finds another way
            await _fail(client, message, error)

    async with AsyncExitStack() as stack:
        with nats_errors("hearing event reports"):
            for subject in subjects:
                stack.push_async_callback(_unsubscribe, client, await client.subscribe(subject, cb=answer))
            await reach_server(client)  # the server knows before the far side can have anything to report
        yield


async def _fail(client: Client, message: Msg, error: Exception) -> None:
    log.info("event report not passed on", error=f"{type(error).__name__}: {error}")
    name = type(error).__name__ if isinstance(error, ImagingError) else "RetryableError"
    with suppress(ImagingError), nats_errors("refusing an event report"):
        if not client.is_closed:
            headers = {H_KIND: str(ReplyKind.FAILED), H_ERROR: name}
            await client.publish(message.reply, str(error).encode(), headers=headers)


async def _unsubscribe(client: Client, subscription: Subscription) -> None:
    with suppress(ImagingError), nats_errors("hearing no more event reports"):
        if not client.is_closed:
            await subscription.unsubscribe()
        if client.is_connected:
            await reach_server(client)  # whoever reports now is told so at once


async def reported(
    client: Client, subject: str, call: Call, payload: bytes, more: dict[str, str], seconds: float
) -> DimseResponse:
    """The far side: the response to a report; ``more`` are the headers of its payload. Raises ``BackendUnavailable``
    when no such association is open, ``DeadlineExceeded``, and what the near side raises."""
    with nats_errors("reporting an event"):
        async with open_inbox(client) as inbox:
            await client.publish(subject, payload, reply=inbox.subject, headers=call.headers() | more)
            message = await inbox.next(seconds)
    headers = message.headers or {}
    if headers.get("Status") == "503":
        raise BackendUnavailable(f"the association {call.origin.association_id} is not open any more")
    if headers.get(H_KIND) == ReplyKind.FAILED:
        raise error_from(header(headers, H_ERROR), message.data.decode(errors="replace"))
    command = decode_command(header(headers, H_COMMAND))
    if command.has_data_set and not message.data:  # a near side that passes no Event Reply on
        return DimseResponse(CommandSet({**command.elements, COMMAND_DATA_SET_TYPE: NO_DATA_SET}))
    return DimseResponse(command, message.data if command.has_data_set else None)

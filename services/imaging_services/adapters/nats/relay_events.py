"""Event reports from the far side over an association that is open at the near side (PS3.7 section 10.1.1)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.adapters.nats.relay_inbox import open_inbox
from imaging_services.domain.dicom.command_set import CommandSet
from imaging_services.domain.errors import BackendUnavailable, ImagingError, OutOfResources
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

_HEADER_ROOM = 32 * 1024


@asynccontextmanager
async def heard(client: Client, subject: str, handler: EventHandler) -> AsyncIterator[None]:
    """The near side: hand the reports that come to the handler, for the length of the block. Raises as NATS does."""

    async def answer(message: Msg) -> None:
        try:
            response = await handler(Call.from_headers(message.headers or {}), message.data)
            headers = {H_KIND: str(ReplyKind.END), H_COMMAND: encode_command(response)}
            await client.publish(message.reply, headers=headers)
        except Exception as error:  # noqa: BLE001 - the far side is told, and finds another way
            log.info("event report not passed on", error=f"{type(error).__name__}: {error}")
            name = type(error).__name__ if isinstance(error, ImagingError) else "RetryableError"
            headers = {H_KIND: str(ReplyKind.FAILED), H_ERROR: name}
            await client.publish(message.reply, str(error).encode(), headers=headers)

    with nats_errors("hearing event reports"):
        subscription = await client.subscribe(subject, cb=answer)
    try:
        with nats_errors("hearing event reports"):
            await client.flush()  # the server knows before the far side can have anything to report
        yield
    finally:
        with suppress(ImagingError), nats_errors("hearing no more event reports"):
            if not client.is_closed:
                await subscription.unsubscribe()
            if client.is_connected:
                await client.flush()  # whoever reports now is told so at once


async def reported(client: Client, subject: str, call: Call, data: bytes, seconds: float) -> CommandSet:
    """The far side: the response to a report. Raises ``BackendUnavailable`` when no such association is open,
    ``OutOfResources`` for a report that is longer than a message, ``DeadlineExceeded``, and what the near
    side raises."""
    if len(data) > client.max_payload - _HEADER_ROOM:
        raise OutOfResources(f"an event report of {len(data)} bytes is longer than a message")
    with nats_errors("reporting an event"):
        async with open_inbox(client) as inbox:
            await client.publish(subject, data, reply=inbox.subject, headers=call.headers())
            message = await inbox.next(seconds)
    headers = message.headers or {}
    if headers.get("Status") == "503":
        raise BackendUnavailable(f"the association {call.origin.association_id} is not open any more")
    if headers.get(H_KIND) == ReplyKind.FAILED:
        raise error_from(header(headers, H_ERROR), message.data.decode(errors="replace"))
    return decode_command(header(headers, H_COMMAND))

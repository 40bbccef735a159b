"""Dead letters: events that a consumer gave up on, kept with the reason until they are put back."""

import base64
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.adapters.nats.consumer import Failure
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.events.attributes import decode_value, encode_value
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.events.nats_binding import decode_nats
from imaging_services.domain.nats_names import token
from imaging_services.domain.ports import DeadLetter

log = structlog.get_logger(__name__)

_CONSUMER, _REASON, _ATTEMPTS, _FAILED_AT = (
    "Imaging-Consumer",
    "Imaging-Reason",
    "Imaging-Attempts",
    "Imaging-Failed-At",
)
_MESSAGE_ID = "Nats-Msg-Id"
_REASON_LIMIT = 1000  # bytes; three times as many when every one has to be escaped


class Prepare(Protocol):
    """Makes the streams exist."""

    async def __call__(self) -> None:
        """Raises nats-py's errors or a RetryableError."""
        ...


@dataclass(frozen=True, slots=True)
class DeadLetterBox:
    """One dead letter stream. ``subject`` gives a consumer's subject from its name, ``redrive_subject`` the one that
    puts a letter back."""

    client: Client
    stream: str
    subject: Callable[[str], str]
    redrive_subject: Callable[[DeadLetter], str]
    prepare: Prepare
    domain: str | None = None

    async def keep(self, message: Msg, failure: Failure) -> None:
        """Store a message that a consumer gave up on; durable on return."""
        meta = message.metadata
        headers = {
            **_own_headers(message.headers),
            _CONSUMER: encode_value(failure.consumer),
            _REASON: encode_value(_cut(failure.reason)),
            _ATTEMPTS: str(failure.attempts),
            _FAILED_AT: datetime.now(UTC).isoformat(),
            _MESSAGE_ID: f"{token(failure.consumer)}-{meta.sequence.stream}-{meta.timestamp.timestamp()}",
        }
        with nats_errors("keeping a dead letter"):
            await self.prepare()
            js = self.client.jetstream(domain=self.domain)
            await js.publish(self.subject(failure.consumer), message.data, headers=headers)

    async def list(self, consumer: str | None = None) -> AsyncIterator[DeadLetter]:
        """Every dead letter that is there now, oldest first."""
        async for message in self._messages(consumer):
            yield _letter(message)

    async def redrive(self, consumer: str | None, sequences: Sequence[int] | None) -> int:
        """Publish to the redrive subject of each one's consumer, then delete; returns how many.

        Interrupted in between, the next redrive sends the same message id, which JetStream keeps once.
        """
        js = self.client.jetstream(domain=self.domain)
        wanted = None if sequences is None else set(sequences)
        redriven = 0
        async for message in self._messages(consumer):
            if wanted is not None and message.seq not in wanted:
                continue
            letter = _letter(message)
            headers = _own_headers(message.headers)
            headers[_MESSAGE_ID] = f"redrive-{token(letter.consumer)}-{letter.sequence}-{letter.failed_at.timestamp()}"
            with nats_errors("redriving a dead letter"):
                await self.prepare()
                await js.publish(self.redrive_subject(letter), message.data or b"", headers=headers)
                await js.delete_msg(self.stream, letter.sequence)
            log.info("dead letter redriven", consumer=letter.consumer, id=letter.event.id)
            redriven += 1
        return redriven

    async def _messages(self, consumer: str | None) -> AsyncIterator[RawStreamMsg]:
        js = self.client.jetstream(domain=self.domain)
        subject = self.subject(consumer) if consumer is not None else ">"
        with nats_errors("reading dead letters"):
            try:
                last = (await js.stream_info(self.stream)).state.last_seq
            except NotFoundError:
                return
        sequence = 1
        while sequence <= last:
            with nats_errors("reading dead letters"):
                try:
                    message = await js.get_msg(self.stream, sequence, subject=subject, direct=True, next=True)
                except (NotFoundError, NoRespondersError):
                    return
            if message.seq is None or message.seq > last:
                return
            yield message
            sequence = message.seq + 1


def _cut(reason: str) -> str:
    return reason.encode()[:_REASON_LIMIT].decode(errors="ignore")


def _letter(message: RawStreamMsg) -> DeadLetter:
    headers = message.headers or {}
    return DeadLetter(
        sequence=message.seq or 0,
        consumer=decode_value(headers.get(_CONSUMER, "")),
        reason=decode_value(headers.get(_REASON, "")),
        attempts=int(headers.get(_ATTEMPTS, "0")),
        failed_at=datetime.fromisoformat(headers.get(_FAILED_AT) or datetime.now(UTC).isoformat()),
        event=_event(message),
    )


def _event(message: RawStreamMsg) -> CloudEvent:
    """The original event; a message that never was one is shown as what it is."""
    data = message.data or b""
    try:
        return decode_nats(message.headers, data)
    except InvalidInput:
        return CloudEvent(
            type="UnreadableMessage",
            source="nats",
            id=f"{message.subject}-{message.seq}",
            data=orjson.dumps({"body": base64.b64encode(data).decode()}),
        )


def _own_headers(headers: dict[str, str] | None) -> dict[str, str]:
    """The original's headers without those that NATS and we add."""
    return {name: value for name, value in (headers or {}).items() if not name.startswith(("Nats-", "Imaging-"))}

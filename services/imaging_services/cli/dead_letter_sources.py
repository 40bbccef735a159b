"""Where dead letters lie: the event log, the DIMSE relay and the event bridge, behind one face.

A source speaks for the consumers that are its own. Those of the relay are called ``relay-A`` and ``relay-B`` (the
channel that was to receive), those of the bridge ``mailbox-hub`` and ``mailbox-<EDGE_MAILBOX_ID>``; every other name is
a consumer of the event log.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from imaging_services.adapters.nats.connection import connect
from imaging_services.adapters.nats.events import JetStreamEventLog
from imaging_services.adapters.nats.mailbox import JetStreamMailboxes
from imaging_services.adapters.nats.relay_dead_letters import (
    Redriven,
    RelayDeadLetter,
    list_relay_dead_letters,
    redrive_relay,
)
from imaging_services.adapters.nats.types import NatsClient
from imaging_services.cli.target import TargetSettings
from imaging_services.domain.errors import SettingsError
from imaging_services.domain.ports import DeadLetter

RELAY, MAILBOX = "relay-", "mailbox-"
CHANNELS = ("A", "B")
PATIENCE = 4.0
"""Seconds for a server to answer; a service would wait for as long as it takes."""


@dataclass(frozen=True)
class Row:
    """One dead letter of any source."""

    consumer: str
    sequence: int
    failed_at: str
    tries: int
    what: str
    reason: str


class Source(Protocol):
    """Dead letters of one kind. ``consumer`` None stands for all of its consumers, another source's name for none."""

    def rows(self, consumer: str | None) -> AsyncIterator[Row]:
        """What is there, oldest first. Raises a RetryableError."""
        ...

    async def redrive(self, consumer: str | None, sequences: Sequence[int] | None) -> Redriven:
        """Put back, all that are not superseded or those of ``sequences``. Raises a RetryableError."""
        ...


@asynccontextmanager
async def open_sources(settings: TargetSettings) -> AsyncIterator[list[Source]]:
    """A source for each NATS server that the settings name. Raises ``SettingsError`` when they name none."""
    sources: list[Source] = []
    async with AsyncExitStack() as stack:
        if settings.EVENTS_NATS_URL:
            client = await stack.enter_async_context(connect(settings.event_nats("imaging-cli"), patience=PATIENCE))
            sources.append(EventLogLetters(client, settings))
        if settings.DIMSE_NATS_URL:
            relay = settings.relay_nats("imaging-cli")
            client = await stack.enter_async_context(connect(relay, patience=PATIENCE))
            sources.append(RelayLetters(client, relay.subject_root))
        if settings.NATS_URL:
            bridge = settings.bridge_nats("imaging-cli")
            client = await stack.enter_async_context(connect(bridge, patience=PATIENCE))
            sources.append(MailboxLetters(client, bridge.subject_root))
        if not sources:
            raise SettingsError("which installation? give --data-dir, or set EVENTS_NATS_URL, DIMSE_NATS_URL, NATS_URL")
        yield sources


class EventLogLetters:
    """Events that a binding or the bridge could not deliver, by its durable consumer's name."""

    def __init__(self, client: NatsClient, settings: TargetSettings) -> None:
        self._log = JetStreamEventLog(client, settings.event_subjects(), settings.event_policy())

    async def rows(self, consumer: str | None) -> AsyncIterator[Row]:
        """See ``Source``."""
        if _is_event_consumer(consumer):
            async for letter in self._log.dead_letters(consumer):
                yield _event_row(letter.consumer, letter)

    async def redrive(self, consumer: str | None, sequences: Sequence[int] | None) -> Redriven:
        """See ``Source``."""
        return Redriven(await self._log.redrive(consumer, sequences) if _is_event_consumer(consumer) else 0)


class RelayLetters:
    """Instances that a relay could not hand over; their bytes are kept with them."""

    def __init__(self, client: NatsClient, root: str) -> None:
        self._client, self._root = client, root

    async def rows(self, consumer: str | None) -> AsyncIterator[Row]:
        """See ``Source``."""
        for channel in self._channels(consumer):
            async for letter in list_relay_dead_letters(self._client, self._root, channel):
                yield _relay_row(letter)

    async def redrive(self, consumer: str | None, sequences: Sequence[int] | None) -> Redriven:
        """See ``Source``."""
        return total(
            [await redrive_relay(self._client, self._root, one, sequences) for one in self._channels(consumer)]
        )

    def _channels(self, consumer: str | None) -> list[str]:
        return [channel for channel in CHANNELS if consumer in (None, RELAY + channel)]


class MailboxLetters:
    """Events that came through the bridge and that the local processor refused."""

    def __init__(self, client: NatsClient, root: str) -> None:
        self._mailboxes = JetStreamMailboxes(client, root)

    async def rows(self, consumer: str | None) -> AsyncIterator[Row]:
        """See ``Source``."""
        if consumer is None or consumer.startswith(MAILBOX):
            async for letter in self._mailboxes.dead_letters(_mailbox(consumer)):
                yield _event_row(MAILBOX + letter.consumer, letter)

    async def redrive(self, consumer: str | None, sequences: Sequence[int] | None) -> Redriven:
        """See ``Source``."""
        if consumer is None or consumer.startswith(MAILBOX):
            return Redriven(await self._mailboxes.redrive(_mailbox(consumer), sequences))
        return Redriven(0)


def total(parts: Sequence[Redriven]) -> Redriven:
    """Of several sources together."""
    return Redriven(sum(one.put_back for one in parts), sum(one.superseded for one in parts))


def _is_event_consumer(consumer: str | None) -> bool:
    relays = {RELAY + channel for channel in CHANNELS}
    return consumer is None or not (consumer in relays or consumer.startswith(MAILBOX))


def _mailbox(consumer: str | None) -> str | None:
    return consumer.removeprefix(MAILBOX) if consumer is not None else None


def _event_row(consumer: str, letter: DeadLetter) -> Row:
    failed_at = letter.failed_at.isoformat(timespec="seconds")
    what = f"{letter.event.type} {letter.event.id}"
    return Row(consumer, letter.sequence, failed_at, letter.attempts, what, letter.reason)


def _relay_row(letter: RelayDeadLetter) -> Row:
    failed_at = letter.failed_at.isoformat(timespec="seconds")
    what = f"C-STORE {letter.sop_instance_uid} from {letter.calling_ae_title}, {letter.size:,} bytes"
    reason = f"{letter.error}: {letter.reason}"
    return Row(RELAY + letter.channel, letter.sequence, failed_at, letter.tries, what, reason)

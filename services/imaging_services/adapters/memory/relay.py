"""In-memory twin of the relay: two ends on one bus, for tests and for flows without NATS."""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime

from imaging_services.domain.dicom.dimse import (
    AssociationRequest,
    Cancellation,
    DimseResponse,
    Negotiated,
    Rejection,
    Status,
    StoreAnswer,
)
from imaging_services.domain.errors import BackendUnavailable, OutOfResources, is_retryable
from imaging_services.domain.relay.checked import checked, single
from imaging_services.domain.relay.disposition import failure_of
from imaging_services.domain.relay.messages import AssociationNotice, Call, StoreMessage
from imaging_services.domain.relay.ports import RelayHandler
from imaging_services.domain.relay.subjects import other_channel


@dataclass(eq=False)
class MemoryDeadLetter:
    """A store given up on, and why."""

    message: StoreMessage
    payload: bytes
    reason: str


@dataclass
class MemoryRelayBus:
    """What lies between the two ends. ``max_waiting`` bounds the stores on their way to each channel."""

    max_tries: int = 3
    retry_seconds: float = 0.01
    max_waiting: int = 10_000
    handlers: dict[str, RelayHandler] = field(default_factory=dict)
    waiting: dict[str, list[tuple[StoreMessage, bytes]]] = field(default_factory=lambda: {"A": [], "B": []})
    under_way: dict[str, list[StoreMessage]] = field(default_factory=lambda: {"A": [], "B": []})
    ends: dict[str, list[AssociationNotice]] = field(default_factory=lambda: {"A": [], "B": []})
    dead_letters: dict[str, list[MemoryDeadLetter]] = field(default_factory=lambda: {"A": [], "B": []})
    news: dict[str, asyncio.Event] = field(default_factory=lambda: {"A": asyncio.Event(), "B": asyncio.Event()})

    def end(self, channel: str) -> "MemoryRelay":
        """The end that listens on a channel."""
        return MemoryRelay(self, channel)


class MemoryRelay:
    """One end, see ``RelayLink`` and ``RelayListener``."""

    def __init__(self, bus: MemoryRelayBus, channel: str) -> None:
        self._bus, self._own, self._other = bus, channel, other_channel(channel)

    async def store_durably(self, call: Call, data: AsyncIterable[bytes]) -> None:
        """Keep the instance for the other end."""
        staged = await _staged(call, data, datetime.now(UTC))
        if len(self._bus.waiting[self._other]) >= self._bus.max_waiting:
            raise OutOfResources("the relay is full")
        self._bus.waiting[self._other].append(staged)
        self._bus.news[self._other].set()

    async def store_confirmed(self, call: Call, data: AsyncIterable[bytes]) -> StoreAnswer:
        """Hand the instance to the other end's handler."""
        message, payload = await _staged(call, data)
        return await self._far_side().store(message, checked(message, single(payload)))

    async def request(
        self, call: Call, data: bytes | None = None, cancellation: Cancellation | None = None
    ) -> AsyncIterator[DimseResponse]:
        """Ask the other end's handler."""
        cancellation = cancellation or Cancellation()
        responses = self._far_side().serve(call, data, cancellation)
        async with aclosing(responses) as open_responses:  # type: ignore[type-var]  # a generator behind its port
            async for response in open_responses:
                if cancellation.requested and not cancellation.handled:
                    yield DimseResponse(call.command.response(Status.CANCEL))
                    return
                yield response

    async def negotiate(self, request: AssociationRequest) -> Negotiated | Rejection:
        """Ask the other end's handler."""
        return await self._far_side().negotiate(request)

    async def announce(self, notice: AssociationNotice) -> None:
        """Tell the other end's handler, if there is one."""
        handler = self._bus.handlers.get(self._other)
        if handler is not None:
            await handler.noticed(notice)

    async def finish(self, notice: AssociationNotice) -> None:
        """Keep the end behind the association's stores."""
        self._bus.ends[self._other].append(notice)
        self._bus.news[self._other].set()

    async def listen(self, handler: RelayHandler) -> None:
        """Serve the own channel until cancelled."""
        bus = self._bus
        bus.handlers[self._own] = handler
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    bus.news[self._own].clear()
                    while bus.waiting[self._own]:
                        tasks.create_task(self._deliver(handler, *bus.waiting[self._own].pop(0)))
                        await asyncio.sleep(0)
                    await self._tell_ends(handler)
                    await bus.news[self._own].wait()
        finally:
            del bus.handlers[self._own]

    async def redrive(self) -> int:
        """Put the own channel's dead letters back; returns how many."""
        letters, self._bus.dead_letters[self._own] = self._bus.dead_letters[self._own], []
        self._bus.waiting[self._own].extend((letter.message, letter.payload) for letter in letters)
        self._bus.news[self._own].set()
        return len(letters)

    def _far_side(self) -> RelayHandler:
        handler = self._bus.handlers.get(self._other)
        if handler is None:
            raise BackendUnavailable(f"nobody listens on {self._other}")
        return handler

    async def _deliver(self, handler: RelayHandler, message: StoreMessage, payload: bytes) -> None:
        tries = 0
        self._bus.under_way[self._own].append(message)
        try:
            while True:
                tries += 1
                error = await _try(handler, message, payload)
                if error is None:
                    return
                if not is_retryable(error) or tries >= self._bus.max_tries:
                    self._bus.dead_letters[self._own].append(MemoryDeadLetter(message, payload, str(error)))
                    return
                await asyncio.sleep(self._bus.retry_seconds)
        except asyncio.CancelledError:
            self._bus.waiting[self._own].append((message, payload))
            raise
        finally:
            self._bus.under_way[self._own].remove(message)
            self._bus.news[self._own].set()

    async def _tell_ends(self, handler: RelayHandler) -> None:
        bus = self._bus
        for notice in list(bus.ends[self._own]):
            stores = [message for message, _ in bus.waiting[self._own]] + bus.under_way[self._own]
            if not any(one.call.origin.association_id == notice.origin.association_id for one in stores):
                bus.ends[self._own].remove(notice)
                await handler.noticed(notice)


async def _try(handler: RelayHandler, message: StoreMessage, payload: bytes) -> Exception | None:
    try:
        return failure_of(await handler.store(message, checked(message, single(payload))))
    except Exception as error:  # noqa: BLE001 - whatever a handler raises decides on the next try
        return error


async def _staged(
    call: Call, data: AsyncIterable[bytes], accepted_at: datetime | None = None
) -> tuple[StoreMessage, bytes]:
    payload = b"".join([block async for block in data])
    digest = hashlib.sha256(payload).hexdigest()
    message = StoreMessage(call, uuid.uuid4().hex, len(payload), digest, accepted_at=accepted_at)
    return message, payload

"""In-memory twin of the relay: two ends on one bus, for tests and for flows without NATS."""

import asyncio
import hashlib
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from imaging_services.domain.dicom.command_set import CommandSet
from imaging_services.domain.dicom.dimse import (
    AssociationRequest,
    Cancellation,
    DimseResponse,
    Negotiated,
    Rejection,
    Status,
    StoreAnswer,
)
from imaging_services.domain.dicom.storage_scp import Context, StorageScp
from imaging_services.domain.errors import BackendUnavailable, OutOfResources, UnsupportedSopClass, is_retryable
from imaging_services.domain.relay.checked import checked, single
from imaging_services.domain.relay.disposition import failure_of
from imaging_services.domain.relay.messages import AssociationNotice, Call, StoreMessage
from imaging_services.domain.relay.ports import EventHandler, RelayHandler
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
    hearing: dict[tuple[str, str], EventHandler] = field(default_factory=dict)
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

    async def store_durably(self, call: Call, data: AsyncIterable[bytes], *, urgent: bool = False) -> None:
        """Keep the instance for the other end."""
        message, payload = await _staged(call, data, datetime.now(UTC))
        waiting = self._bus.waiting[self._other]
        if len(waiting) >= self._bus.max_waiting:
            raise OutOfResources("the relay is full")
        place = sum(one.urgent for one, _ in waiting) if urgent else len(waiting)
        waiting.insert(place, (replace(message, urgent=urgent), payload))
        self._bus.news[self._other].set()

    async def store_confirmed(self, call: Call, data: AsyncIterable[bytes]) -> StoreAnswer:
        """Hand the instance to the other end's handler."""
        message, payload = await _staged(call, data)
        return await self._far_side().store(message, checked(message, single(payload)))

    async def request(
        self,
        call: Call,
        data: bytes | None = None,
        cancellation: Cancellation | None = None,
        requestor: StorageScp | None = None,
    ) -> AsyncIterator[DimseResponse]:
        """Ask the other end's handler."""
        cancellation = cancellation or Cancellation()
        distant = _DistantScp(requestor, call.takes) if requestor and call.takes is not None else None
        responses = self._far_side().serve(call, data, cancellation, distant)
        async with aclosing(responses) as open_responses:  # type: ignore[type-var]  # a generator behind its port
            async for response in open_responses:
                if distant is not None and distant.failure is not None:
                    raise distant.failure
                if cancellation.requested and not cancellation.handled:
                    yield DimseResponse(call.command.response(Status.CANCEL))
                    return
                yield response

    async def negotiate(self, request: AssociationRequest) -> Negotiated | Rejection:
        """Ask the other end's handler."""
        return await self._far_side().negotiate(request)

    @asynccontextmanager
    async def hearing(self, association_id: str, handler: EventHandler) -> AsyncIterator[None]:
        """Let the other end report."""
        self._bus.hearing[self._own, association_id] = handler
        try:
            yield
        finally:
            del self._bus.hearing[self._own, association_id]

    async def report(self, call: Call, data: bytes | None) -> DimseResponse:
        """Report over an association of the other end."""
        handler = self._bus.hearing.get((self._other, call.origin.association_id))
        if handler is None:
            raise BackendUnavailable(f"the association {call.origin.association_id} is not open any more")
        return await handler(call, data)

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


class _DistantScp:
    """The requestor of a C-GET as the other end sees it; ``failure`` is why it takes nothing any more."""

    def __init__(self, requestor: StorageScp, contexts: Sequence[Context]) -> None:
        self._requestor = requestor
        self.contexts: Sequence[Context] = contexts
        self.failure: Exception | None = None

    async def store(
        self, sop_class_uid: str, transfer_syntax: str, command: CommandSet, data: AsyncIterator[bytes]
    ) -> CommandSet:
        """See ``StorageScp``."""
        if (sop_class_uid, transfer_syntax) not in self.contexts:
            raise UnsupportedSopClass(f"the requestor does not take {sop_class_uid} in {transfer_syntax}")
        try:
            return await self._requestor.store(sop_class_uid, transfer_syntax, command, data)
        except Exception as error:
            self.failure = error
            raise


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

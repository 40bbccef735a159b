"""The event log in memory: the twin of the one on JetStream, for tests and for flows without a server."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from imaging_services.domain.errors import ImagingError, is_retryable
from imaging_services.domain.events.envelope import CloudEvent, is_urgent
from imaging_services.domain.events.nats_binding import deduplication_id
from imaging_services.domain.ports import DeadLetter, EventHandler


@dataclass
class _Consumer:
    """``position`` and ``waiting`` are of urgent events (True) and of the others."""

    types: frozenset[str]
    position: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    waiting: dict[bool, deque[tuple[CloudEvent, int]]] = field(  # with the number of tries so far
        default_factory=lambda: {True: deque(), False: deque()}
    )

    def take(self, events: Sequence[CloudEvent]) -> tuple[CloudEvent, int] | None:
        """The next one, urgent ones first; None when there is none."""
        for urgent in (True, False):
            if self.waiting[urgent]:
                return self.waiting[urgent].popleft()
            while self.position[urgent] < len(events):
                event = events[self.position[urgent]]
                self.position[urgent] += 1
                if event.type in self.types and is_urgent(event) == urgent:
                    return event, 0
        return None


class MemoryEventLog:
    """``EventLog`` that lives as long as its process. ``retry_delays`` are seconds, the last one repeats."""

    def __init__(self, retry_delays: Sequence[float] = (1.0, 5.0, 30.0), max_tries: int = 16) -> None:
        self.events: list[CloudEvent] = []
        self._ids: set[str] = set()
        self._delays = tuple(retry_delays)
        self._max_tries = max_tries
        self._consumers: dict[str, _Consumer] = {}
        self._letters: list[DeadLetter] = []
        self._next_letter = 1
        self._retries: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    async def append(self, events: Sequence[CloudEvent]) -> None:
        """As the port says; an id is kept once for ever."""
        async with self._changed:
            for event in events:
                if (identity := deduplication_id(event)) not in self._ids:
                    self._ids.add(identity)
                    self.events.append(event)
            self._changed.notify_all()

    async def consume(
        self, consumer: str, types: frozenset[str], handler: EventHandler, *, concurrency: int = 8
    ) -> None:
        """As the port says."""
        state = self._consumers.setdefault(consumer, _Consumer(types))
        state.types = types
        stopping = asyncio.Event()

        async def work() -> None:
            while (item := await self._next(state, stopping)) is not None:
                await self._deliver(consumer, state, handler, *item)

        workers = asyncio.gather(*(work() for _ in range(concurrency)))
        try:
            await asyncio.shield(workers)
        except asyncio.CancelledError:
            stopping.set()
            async with self._changed:
                self._changed.notify_all()
            await workers
            raise

    async def dead_letters(self, consumer: str | None = None) -> AsyncIterator[DeadLetter]:
        """As the port says."""
        for letter in list(self._letters):
            if consumer in (None, letter.consumer):
                yield letter

    async def redrive(self, consumer: str | None = None, sequences: Sequence[int] | None = None) -> int:
        """As the port says."""
        chosen = [
            letter
            for letter in self._letters
            if consumer in (None, letter.consumer) and (sequences is None or letter.sequence in sequences)
        ]
        for letter in chosen:
            self._letters.remove(letter)
            state = self._consumers.setdefault(letter.consumer, _Consumer(frozenset()))
            await self._requeue(state, letter.event, 0, 0)
        return len(chosen)

    async def _next(self, state: _Consumer, stopping: asyncio.Event) -> tuple[CloudEvent, int] | None:
        async with self._changed:
            while not stopping.is_set():
                if (item := state.take(self.events)) is not None:
                    return item
                await self._changed.wait()
        return None

    async def _deliver(
        self, consumer: str, state: _Consumer, handler: EventHandler, event: CloudEvent, tried: int
    ) -> None:
        try:
            await handler(event)
        except Exception as error:  # noqa: BLE001 - whatever the handler raises is settled here, by its type
            tries = tried + 1
            if is_retryable(error) and tries < self._max_tries:
                delay = self._delays[min(tries, len(self._delays)) - 1]
                retry = asyncio.create_task(self._requeue(state, event, tries, delay))
                self._retries.add(retry)
                retry.add_done_callback(self._retries.discard)
            else:
                reason = str(error) if isinstance(error, ImagingError) else f"{type(error).__name__}: {error}"
                self._bury(DeadLetter(self._next_letter, consumer, reason, tries, datetime.now(UTC), event))

    def _bury(self, letter: DeadLetter) -> None:
        self._letters.append(letter)
        self._next_letter += 1

    async def _requeue(self, state: _Consumer, event: CloudEvent, tries: int, delay: float) -> None:
        await asyncio.sleep(delay)
        async with self._changed:
            state.waiting[is_urgent(event)].append((event, tries))
            self._changed.notify_all()

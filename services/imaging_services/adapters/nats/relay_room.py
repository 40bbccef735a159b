"""Room for messages that have been fetched and are not done: one bound for all queues that are emptied together.

Every queue has a share of its own, with which it is asked even while it is empty, and those in which messages wait
divide the rest. So a long queue holds up no other, and the bound holds however many queues there are.
"""

import asyncio
import time
from dataclasses import dataclass, field

_SMALLEST = 4  # a request asks for at least a quarter of what the queue may have


@dataclass(slots=True)
class _Amount:
    messages: int = 0
    size: int = 0

    def add(self, messages: int, size: int) -> None:
        self.messages = max(self.messages + messages, 0)
        self.size = max(self.size + size, 0)


@dataclass(frozen=True, slots=True)
class Grant:
    """What a queue may be asked for: so many messages, of so many bytes together."""

    messages: int
    size: int


@dataclass(eq=False, slots=True)
class Lane:
    """One queue's part in the room. Made by ``Room.lane``."""

    room: "Room"
    waiting: bool = False
    """More messages wait in the queue than have been asked for."""
    asked: _Amount = field(default_factory=_Amount)
    working: _Amount = field(default_factory=_Amount)
    granted: Grant | None = None
    event: asyncio.Event = field(default_factory=asyncio.Event)
    wants: bool = False
    blocked: bool = False
    """The next message is larger than the queue's share."""
    crowded: bool = False
    """The next message has no room beside those at work."""
    asked_at: float = 0.0

    @property
    def held(self) -> int:
        """Bytes."""
        return self.asked.size + self.working.size

    async def grant(self) -> Grant:
        """Wait for room to ask for more; it counts as asked for from then on."""
        self.wants = True
        self.event.clear()
        self.room.share_out()
        await self.event.wait()
        assert self.granted is not None
        return self.granted

    def took(self, size: int, at_work: int, left: int) -> None:
        """A message of so many bytes has come, which are ``at_work`` bytes from now on; so many are left in the
        queue."""
        self.asked.add(-1, -size)
        self.working.add(1, at_work)
        self.blocked = False
        self.waiting = left > self.asked.messages

    def done(self, size: int) -> None:
        """It is acknowledged or given back."""
        self.working.add(-1, -size)
        self.crowded = False
        self.room.share_out()

    def ended(self, messages: int | None, size: int | None, *, too_large: bool = False) -> None:
        """A request has ended with so much of it unused, None for all that was asked; ``too_large``: the next message
        had no room in it."""
        nothing_came = self.asked.messages == messages and not self.working.messages
        self.asked.add(-(messages if messages is not None else self.asked.messages), -(size or 0))
        if not self.asked.messages or size is None:
            self.asked.size = 0
        self.waiting = too_large
        self.blocked = too_large and nothing_came
        self.crowded = too_large and self.working.messages > 0
        self.room.share_out()

    def lost(self) -> None:
        """All requests are lost."""
        self.asked = _Amount()
        self.room.share_out()

    def leave(self) -> None:
        """The queue is asked no more; what it has at work counts until it is done."""
        self.wants, self.asked = False, _Amount()
        self.room.remove(self)


class Room:
    """At most ``messages``, of at most ``size`` bytes, but of twice the ``largest`` message at least. ``joined``: other
    queues may join at any time, so that one alone leaves room for them."""

    def __init__(self, messages: int, size: int, largest: int, *, joined: bool = True) -> None:
        self._messages, self._size, self._largest = messages, max(size, 2 * largest), largest
        self._joined = joined
        self._lanes: list[Lane] = []
        self._left: list[Lane] = []
        self._closed_until = 0.0

    def lane(self) -> Lane:
        """One more queue."""
        lane = Lane(self)
        self._lanes.append(lane)
        return lane

    def remove(self, lane: Lane) -> None:
        """See ``Lane.leave``."""
        if lane in self._lanes:
            self._lanes.remove(lane)
            self._left.append(lane)
        self.share_out()

    def pause(self, seconds: float) -> None:
        """Grant nothing for so long: the receiver is away, and every try would carry the bytes again."""
        until = time.monotonic() + seconds
        if until > self._closed_until:
            self._closed_until = until
            asyncio.get_running_loop().call_later(seconds + 0.001, self.share_out)

    def share_out(self) -> None:
        """Grant what can be granted, first to those that have least."""
        if time.monotonic() < self._closed_until:
            return
        self._left = [lane for lane in self._left if lane.working.messages]
        wanting = [lane for lane in self._lanes if lane.wants]
        if not wanting:
            return
        free = self._free()
        for lane in sorted(wanting, key=lambda one: (one.held, one.asked_at)):
            grant = self._grant(lane, free)
            if grant is not None:
                free.add(-grant.messages, -grant.size)
                lane.asked.add(grant.messages, grant.size)
                lane.granted, lane.wants, lane.asked_at = grant, False, time.monotonic()
                lane.event.set()

    def _free(self) -> _Amount:
        free = _Amount(self._messages, self._size)
        for lane in (*self._lanes, *self._left):
            free.add(-lane.asked.messages - lane.working.messages, -lane.held)
        return free

    def _grant(self, lane: Lane, free: _Amount) -> Grant | None:
        most = self._share(lane)
        messages = min(most.messages - lane.asked.messages - lane.working.messages, free.messages)
        size = min(most.size - lane.held, free.size)
        idle = not lane.asked.messages and not lane.working.messages
        if lane.blocked and not lane.asked.messages and free.messages:
            # The share is too small for the next message: it waits until it can have room for the largest one.
            return Grant(1, self._largest) if free.size >= self._largest else None
        if lane.crowded or messages < 1 or (messages < max(1, most.messages // _SMALLEST) and not idle):
            return None
        least = self._largest if most.size >= 2 * self._largest else max(most.size // _SMALLEST, 1)
        return Grant(messages, size) if size >= least else None

    def _share(self, lane: Lane) -> _Amount:
        """Half of all is divided between all queues, the other half between those in which messages wait."""
        count = len(self._lanes)
        if count == 1 and not self._joined:
            return _Amount(self._messages, self._size)
        size = self._size
        if count > 1 and size // (2 * count) < 2 * self._largest:
            size -= self._largest  # kept free for a message that is larger than its queue's share
        most = _Amount(max(self._messages // (2 * count), 1), size // (2 * count))
        if lane.waiting:
            waiting = sum(one.waiting for one in self._lanes)
            most.add(self._messages // (2 * waiting), size // (2 * waiting))
        return most

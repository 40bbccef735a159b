"""The order of the versions of one instance: a modality that sends an instance again means the last one.

Many stores are at work at a time, some are tried again later, and what was in hand when NATS or a receiver died is
delivered again after what came since. Within one receiving process the following has a newer version wait for an older
one, and keeps an older one from replacing a newer. Of processes that empty one queue together, none knows of the
others' versions: there the manifest refuses the older one (migration 0004).
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

_T = TypeVar("_T")

_REMEMBERED = 16_384
_GRACE = 5.0  # seconds that a delivery which is due may take
_BEHIND = 0.2  # seconds after it for the version that follows


@dataclass(frozen=True, slots=True)
class Version:
    """One message with an instance. ``sent_at`` is when the stream took it, ``digest`` the data set's."""

    instance: str
    message: str
    sent_at: datetime
    digest: str


@dataclass(slots=True)
class _Turns:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class VersionOrder:
    """What this process knows of the instances it has received lately; SOP Instance UIDs are unique (PS3.5 chapter
    9)."""

    def __init__(self) -> None:
        self._turns: dict[str, _Turns] = {}
        self._stored: OrderedDict[str, None] = OrderedDict()
        self._newest: OrderedDict[str, Version] = OrderedDict()
        self._due: OrderedDict[str, dict[str, tuple[Version, float]]] = OrderedDict()
        self._waits: OrderedDict[str, int] = OrderedDict()

    @asynccontextmanager
    async def turn(self, instance: str) -> AsyncIterator[None]:
        """One version of an instance at a time, in the order of coming here."""
        turns = self._turns.setdefault(instance, _Turns())
        turns.users += 1
        try:
            async with turns.lock:
                yield
        finally:
            turns.users -= 1
            if not turns.users:
                del self._turns[instance]

    def is_stored(self, version: Version) -> bool:
        """Its acknowledgement was lost, or a newer message brought the same bytes."""
        newest = self._newest.get(version.instance)
        return version.message in self._stored or (
            newest is not None and newest.digest == version.digest and newest.sent_at > version.sent_at
        )

    def newer(self, version: Version) -> Version | None:
        """A version with other bytes that was sent later and is stored."""
        newest = self._newest.get(version.instance)
        return newest if newest is not None and newest.sent_at > version.sent_at else None

    def wait(self, version: Version) -> float | None:
        """Seconds until every older version will have been tried again, None when there is none."""
        due, now = self._due.get(version.instance, {}), time.monotonic()
        for message, (_, at) in list(due.items()):
            if at + _GRACE < now:  # another process has got it
                del due[message]
        older = [at for other, at in due.values() if other.sent_at < version.sent_at]
        return max(max(older) - now, 0) + _BEHIND if older else None

    def failed(self, version: Version, again_in: float) -> None:
        """It will be delivered again."""
        due = self._due.get(version.instance, {})
        due[version.message] = version, time.monotonic() + again_in
        _put(self._due, version.instance, due)

    def waits(self, version: Version, again_in: float) -> None:
        """It is given back untried, for the sake of an older one."""
        self.failed(version, again_in)
        _put(self._waits, version.message, self._waits.get(version.message, 0) + 1)

    def tries(self, message: str, deliveries: int) -> int:
        """How often it was tried: waiting for an older version is no try, the server counts it as a delivery."""
        return max(deliveries - self._waits.get(message, 0), 1)

    def given_up(self, version: Version) -> None:
        """It is a dead letter: newer ones wait for it no longer."""
        self._waits.pop(version.message, None)
        due = self._due.get(version.instance, {})
        due.pop(version.message, None)
        if not due:
            self._due.pop(version.instance, None)

    def stored(self, version: Version) -> None:
        """It is safe."""
        self.given_up(version)
        _put(self._stored, version.message, None)
        newest = self._newest.get(version.instance)
        if newest is None or newest.sent_at <= version.sent_at:
            _put(self._newest, version.instance, version)


def _put(remembered: "OrderedDict[str, _T]", key: str, value: "_T") -> None:
    remembered[key] = value
    remembered.move_to_end(key)
    if len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)

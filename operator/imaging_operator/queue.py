"""The work queue: which resource is looked at next. Changes coalesce, and a resource is never in two hands."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from imaging_operator.metrics import QUEUE_DEPTH
from imaging_operator.resources import Key

LONGEST_DELAY = 60.0
"""No failed pass waits longer for the next try, seconds."""
_JITTER = 0.2


@dataclass(slots=True)
class _Entry:
    due: float | None = None
    """When its next pass is due (monotonic seconds); None: only when something happens."""
    running: bool = False
    failures: int = 0


class WorkQueue:
    """Keys and when they are due. Not thread-safe: use it in one event loop."""

    def __init__(self, retry_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._retry = retry_seconds
        self._clock = clock
        self._entries: dict[Key, _Entry] = {}
        self._changed = asyncio.Event()

    def __contains__(self, key: Key) -> bool:
        return key in self._entries

    @property
    def depth(self) -> int:
        """Keys that are due and wait for a worker."""
        now = self._clock()
        return sum(1 for entry in self._entries.values() if _is_due(entry, now))

    def keys(self) -> list[Key]:
        """All known keys."""
        return list(self._entries)

    def add(self, key: Key, delay: float = 0.0) -> None:
        """Look at it after ``delay`` seconds, or sooner when it is due sooner. While it is being looked at: again
        afterwards."""
        entry = self._entries.setdefault(key, _Entry())
        due = self._clock() + delay
        entry.due = due if entry.due is None else min(entry.due, due)
        self._changed.set()

    async def take(self) -> Key:
        """The key that is due the longest, when one is; it is in the caller's hands until ``done``."""
        while True:
            self._changed.clear()
            now = self._clock()
            waiting = [
                (entry.due, key) for key, entry in self._entries.items() if entry.due is not None and not entry.running
            ]
            due, key = min(waiting, default=(None, None))
            if key is not None and due is not None and due <= now:
                entry = self._entries[key]
                entry.due, entry.running = None, True
                self._measure()
                return key
            await self._wait(None if due is None else due - now)

    def done(self, key: Key) -> None:
        """Its pass succeeded, or failed in a way that trying again does not mend."""
        entry = self._entries[key]
        entry.running, entry.failures = False, 0
        self._changed.set()

    def failed(self, key: Key) -> float:
        """Its pass failed for now: it is due again after a delay, in seconds, that grows with each failure."""
        entry = self._entries[key]
        entry.running = False
        delay = min(self._retry * 2.0**entry.failures, LONGEST_DELAY)
        entry.failures = min(entry.failures + 1, 16)
        delay *= 1 - _JITTER * random.random()  # noqa: S311 - spreads load, hides nothing
        self.add(key, delay)
        return delay

    def forget(self, key: Key) -> None:
        """It is gone; unless something happened to it meanwhile, nothing is kept."""
        entry = self._entries[key]
        entry.running, entry.failures = False, 0
        if entry.due is None:
            del self._entries[key]
        self._changed.set()

    async def _wait(self, seconds: float | None) -> None:
        self._measure()
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    def _measure(self) -> None:
        QUEUE_DEPTH.set(self.depth)


def _is_due(entry: _Entry, now: float) -> bool:
    return entry.due is not None and not entry.running and entry.due <= now

"""Work that has been promised and is done later: it outlives the process where the queue is durable."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

RETRY_DELAYS = (2.0, 5.0, 15.0, 60.0, 300.0, 900.0)
"""Seconds before a job is tried again; the last repeats."""


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work: ``body`` as it was handed in, ``tries`` including this one, ``accepted_at`` when that was."""

    body: bytes
    tries: int
    accepted_at: datetime


JobHandler = Callable[[Job], Awaitable[None]]


class Jobs(Protocol):
    """A queue of jobs of one kind."""

    async def put(self, key: str, body: bytes) -> None:
        """Hand in a job; it is kept on return. Raises ``Conflict`` while another job of the same key is not done, and a
        RetryableError when it could not be kept."""
        ...

    async def work(self, handler: JobHandler) -> None:
        """Do jobs, several at a time, until cancelled. A job is done when the handler returns. After a RetryableError,
        or one that was not foreseen, it comes again with growing delay; after a PermanentError it is dropped."""
        ...


def delay_after(tries: int) -> float:
    """Seconds to wait after so many tries."""
    return RETRY_DELAYS[min(tries, len(RETRY_DELAYS)) - 1]

"""Work that has been promised and is done later: it outlives the process where the queue is durable."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from imaging_services.domain.errors import RetryableError

RETRY_DELAYS = (2.0, 5.0, 15.0, 60.0, 300.0, 900.0)
"""Seconds before a job is tried again; the last repeats."""


_LONGEST_TURN = 15.0


class NotYet(RetryableError):
    """It is not this job's turn: it comes again within 15 seconds, however often it has come already."""


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
        or one that was not foreseen, it comes again with growing delay, after ``NotYet`` soon; after a PermanentError
        it is dropped."""
        ...


def delay_after(tries: int, error: Exception | None = None, put_off: int = 0) -> float:
    """Seconds to wait after so many tries, the last of which has ended with this error, and ``put_off`` of which with
    ``NotYet``: those make no other error's delay longer."""
    if isinstance(error, NotYet):
        return min(_delay(tries), _LONGEST_TURN)
    return _delay(tries - put_off)


def _delay(tries: int) -> float:
    return RETRY_DELAYS[max(min(tries, len(RETRY_DELAYS)), 1) - 1]

"""Handing something over until it is taken, or until there is no time left."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import structlog

from imaging_services.domain.errors import RetryableError

log = structlog.get_logger(__name__)

_PAUSES = (0.05, 0.1, 0.25, 0.5, 1.0)  # seconds between tries; the last repeats

Attempt = Callable[[int, float], Awaitable[None]]
"""One try, given the number of those before it and the seconds that are left."""


async def until_taken(attempt: Attempt, timeout: float, what: str) -> None:
    """Try within ``timeout`` seconds; ``what`` says in the log what is handed over. Raises the last RetryableError, and
    a PermanentError at once."""
    deadline = time.monotonic() + timeout
    tries = 0
    while True:
        try:
            await attempt(tries, deadline - time.monotonic())
        except RetryableError as error:
            pause = _PAUSES[min(tries, len(_PAUSES) - 1)] * random.uniform(0.5, 1)  # noqa: S311 - not in step
            tries += 1
            if time.monotonic() + pause >= deadline:
                raise
            log.debug("handed over again", what=what, tries=tries, error=str(error))
            await asyncio.sleep(pause)
        else:
            return

"""Python 3.11's ``asyncio.wait_for`` may keep a cancellation for itself; nats-py calls it for every answer.

When the answer and the cancellation come in the same turn of the event loop, it returns the answer as if nobody had
cancelled (cpython issue 86296, mended in 3.12). A service told to stop in that moment would go on for ever.
"""

import asyncio
import sys
from collections.abc import Awaitable
from typing import TypeVar

_T = TypeVar("_T")


def mend_wait_for() -> None:
    """Give ``asyncio`` the ``wait_for`` of Python 3.12, for this process. Does nothing where it is there already."""
    if sys.version_info < (3, 12):
        asyncio.wait_for = wait_for  # type: ignore[assignment]  # typeshed names futures beside awaitables


async def wait_for(fut: Awaitable[_T], timeout: float | None) -> _T:
    """Wait at most ``timeout`` seconds, else cancel ``fut`` and raise ``TimeoutError``; None is no limit."""
    if timeout is not None and timeout <= 0:
        return await _already_there(fut)
    async with asyncio.timeout(timeout):
        return await fut


async def _already_there(fut: Awaitable[_T]) -> _T:
    task = asyncio.ensure_future(fut)
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    try:
        return task.result()
    except asyncio.CancelledError as error:
        raise TimeoutError from error

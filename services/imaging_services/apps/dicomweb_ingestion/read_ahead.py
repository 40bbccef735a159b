"""Doing work on items ahead of their turn, in order, with a bound on items and on memory."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def in_order(
    items: Iterable[T], work: Callable[[T], Awaitable[R]], use: Callable[[R], Awaitable[None]], *, ahead: int
) -> None:
    """Run ``work`` on up to ``ahead`` items at once and ``use`` each result in the items' order.

    The first error ends it; what is under way is then cancelled and awaited.
    """
    running: deque[asyncio.Future[R]] = deque()
    source = iter(items)
    try:
        while True:
            while len(running) < ahead:
                try:
                    running.append(asyncio.ensure_future(work(next(source))))
                except StopIteration:
                    break
            if not running:
                return
            result = await running[0]
            running.popleft()
            await use(result)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

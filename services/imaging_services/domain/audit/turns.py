"""The same work on many things, so many at once."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from imaging_services.domain.errors import ImagingError

T = TypeVar("T")


async def each(at_once: int, things: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Run ``work`` on each thing. Its first ImagingError ends the others, and is raised by itself."""
    waiting = iter(things)

    async def take_turns() -> None:
        for thing in waiting:
            await work(thing)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(take_turns())
    except BaseExceptionGroup as group:
        raise first_of_ours(group) from group


def first_of_ours(group: BaseExceptionGroup) -> BaseException:
    """The first ImagingError of a group, else the group: one sentence says more than a tree."""
    return next((error for error in group.exceptions if isinstance(error, ImagingError)), group)

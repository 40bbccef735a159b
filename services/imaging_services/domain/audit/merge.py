"""Objects and the manifest's entries side by side, both in order of their names, without holding either in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from imaging_services.domain.audit.model import Entry
from imaging_services.domain.errors import RetryableError
from imaging_services.domain.ports import ObjectInfo

log = structlog.get_logger(__name__)

T = TypeVar("T")
_TRIES = 5
_PAUSE_SECONDS = 2.0


@dataclass(slots=True)
class Place:
    """A name with what there is under it."""

    key: str
    info: ObjectInfo | None = None
    entries: list[Entry] = field(default_factory=list)


async def merged(objects: AsyncIterator[ObjectInfo], entries: AsyncIterator[Entry]) -> AsyncIterator[Place]:
    """Every name that occurs in either. An object that a space lists out of turn (some put names with ``/`` elsewhere)
    comes as one without entries, and its entries as ones without an object: whoever asks again by name finds both."""
    info, entry = await anext(objects, None), await anext(entries, None)
    while True:
        if info is not None and (entry is None or info.key < entry.object_name):
            yield Place(info.key, info)
            info = await anext(objects, None)
            continue
        if entry is None:
            return
        place = Place(entry.object_name)
        if info is not None and info.key == place.key:
            place.info, info = info, await anext(objects, None)
        while entry is not None and entry.object_name == place.key:
            place.entries.append(entry)
            entry = await anext(entries, None)
        yield place


@asynccontextmanager
async def closing(stream: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """The stream; what it holds (a connection, a cursor) is given back at the end, however far it was read."""
    try:
        yield stream
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()


async def in_chunks(places: AsyncIterator[T], size: int) -> AsyncIterator[list[T]]:
    """So many at a time."""
    chunk: list[T] = []
    async for one in places:
        chunk.append(one)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def going_on(
    begin: Callable[[str], AsyncIterator[T]], name: Callable[[T], str], after: str, *, pause: float = _PAUSE_SECONDS
) -> AsyncIterator[T]:
    """All that ``begin`` gives behind ``after``; where it breaks off, it begins again behind the last one. Raises its
    RetryableError when that has happened five times without a step forward."""
    left = _TRIES
    while True:
        try:
            async with closing(begin(after)) as stream:
                async for one in stream:
                    yield one
                    after, left = max(after, name(one)), _TRIES
            return
        except RetryableError as error:
            left -= 1
            if not left:
                raise
            log.warning("reading broke off, going on", after=after, reason=str(error), again_in_seconds=pause)
            await asyncio.sleep(pause)

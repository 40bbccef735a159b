"""Stored instances on their way out: small ones are fetched ahead, large ones streamed, and transcoded on request."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from imaging_services.domain.budget import ByteBudget
from imaging_services.domain.dicom.part10 import Part10Stream
from imaging_services.domain.errors import ImagingError, NotFound, PermanentError
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ObjectStore

AHEAD = 8
SMALL = 4 * 1024 * 1024
"""Bytes; what is longer is not fetched ahead."""
BUDGET = 64 * 1024 * 1024
"""Bytes that all retrieves of the process together fetch ahead."""

DataSource = Callable[[], AsyncIterator[bytes]]


class Transcoded(Protocol):
    """An instance in another transfer syntax."""

    def data_set(self) -> AsyncIterator[bytes]:
        """The data set, streamed."""
        ...


class Transcoder(Protocol):
    """Puts a stored instance into another transfer syntax."""

    async def transcode(self, location: InstanceLocation, target: str) -> Transcoded:
        """Raises before the first byte when it cannot be done, with the reason."""
        ...


@dataclass(slots=True)
class Outgoing:
    """One instance to be sent. ``content`` is its file when that was fetched ahead; ``error`` why it could not be."""

    location: InstanceLocation
    content: bytes | None = None
    error: ImagingError | None = None


class Outbox:
    """Opens instances of a storage space. ``transcoder`` None: only in their own transfer syntax."""

    def __init__(self, space: ObjectStore, transcoder: Transcoder | None) -> None:
        self._space, self._transcoder = space, transcoder
        self._budget = ByteBudget(BUDGET)

    @property
    def transcodes(self) -> bool:
        """Other transfer syntaxes than the stored one may be offered."""
        return self._transcoder is not None

    async def data(self, outgoing: Outgoing, transfer_syntax: str) -> "Begun":
        """The data set, whose first bytes are there already: what is missing or cannot be transcoded is known before
        the first byte is sent. Raises as the storage space and the transcoder do."""
        if outgoing.error is not None:
            raise outgoing.error
        if transfer_syntax == outgoing.location.transfer_syntax_uid:
            return await Begun(lambda: self._stored(outgoing)).begin()
        if self._transcoder is None:
            raise PermanentError(f"not to be transcoded from {outgoing.location.transfer_syntax_uid}")
        return await Begun(partial(_transcoded, self._transcoder, outgoing.location, transfer_syntax)).begin()

    async def in_order(self, locations: Iterable[InstanceLocation]) -> AsyncGenerator[Outgoing, None]:
        """Each instance in turn, the next ones being fetched meanwhile."""
        waiting: deque[tuple[asyncio.Task[Outgoing], int]] = deque()
        source = iter(locations)
        try:
            while True:
                while len(waiting) < AHEAD and (location := next(source, None)) is not None:
                    taken = self._take(location)
                    waiting.append((asyncio.create_task(self._fetch(location, bool(taken))), taken))
                if not waiting:
                    return
                outgoing = await waiting[0][0]
                try:
                    yield outgoing
                finally:
                    self._budget.give_back(waiting.popleft()[1])
        finally:
            for task, taken in waiting:
                task.cancel()
                self._budget.give_back(taken)
            await asyncio.gather(*(task for task, _ in waiting), return_exceptions=True)

    def _take(self, location: InstanceLocation) -> int:
        size = location.size or SMALL + 1
        return size if size <= SMALL and self._budget.try_take(size) else 0

    async def _fetch(self, location: InstanceLocation, whole: bool) -> Outgoing:
        if not whole:
            return Outgoing(location)
        try:
            return Outgoing(location, await self._space.get(location.object_name))
        except ImagingError as error:
            return Outgoing(location, error=error)

    async def _stored(self, outgoing: Outgoing) -> AsyncIterator[bytes]:
        async def single(content: bytes) -> AsyncIterator[bytes]:
            yield content

        content = outgoing.content
        blocks = single(content) if content is not None else self._space.stream(outgoing.location.object_name)
        stream = Part10Stream(blocks)
        await stream.open()
        async for block in stream:
            yield block


async def _transcoded(transcoder: Transcoder, location: InstanceLocation, target: str) -> AsyncIterator[bytes]:
    """Transcoded anew each time: what has been transcoded can be read once."""
    transcoded = await transcoder.transcode(location, target)
    async with aclosing(transcoded.data_set()) as blocks:  # type: ignore[type-var]  # a generator behind its port
        async for block in blocks:
            yield block


class Begun:
    """A data set whose first bytes are there: the first call goes on from them, another one begins anew."""

    def __init__(self, source: DataSource) -> None:
        self._source = source
        self._head: bytes | None = None
        self._rest: AsyncIterator[bytes] | None = None

    async def begin(self) -> "Begun":
        """Read the first block. Raises what reading raises, ``NotFound`` when there is nothing."""
        self._rest = self._source()
        self._head = await anext(self._rest, None)
        if self._head is None:
            raise NotFound("the stored object holds no data set")
        return self

    async def __call__(self) -> AsyncIterator[bytes]:
        head, rest, self._head, self._rest = self._head, self._rest, None, None
        async with aclosing(rest or self._source()) as blocks:  # type: ignore[type-var]  # a generator behind its port
            if head is not None:
                yield head
            async for block in blocks:
                yield block

    async def close(self) -> None:
        """Give up what was begun and not used."""
        rest, self._rest = self._rest, None
        if rest is not None:
            await rest.aclose()  # type: ignore[attr-defined]  # as above

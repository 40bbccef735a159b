"""A stored instance as something to read from: ranges of the object, or the inflated data set when it is deflated."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.dicom.transfer_syntaxes import encoding_of
from imaging_services.domain.errors import NotFound
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import LocalObjects, ObjectStore
from imaging_services.domain.retrieve.inflation import Inflated, inflated
from imaging_services.domain.retrieve.inspection import INSPECTIONS, Fetches

T = TypeVar("T")
AtOnce = Callable[[bytes, int], T | None]
"""Finds something in the beginning of a file of that length."""

HEAD_BYTES = 256 * 1024
"""Read first when the manifest does not know where the header ends."""
LARGEST_HEAD = 8 * 1024 * 1024
LONGEST_HEAD = 32 * 1024
"""Longer headers are not looked through in the event loop, bytes."""
SMALL_FILE = 1024 * 1024
_STORAGE = "1.2.840.10008.5.1.4.1.1"
_ONE_FRAME_CLASSES = frozenset(
    f"{_STORAGE}.{number}"
    for number in (
        *("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1"),  # CR, DX, MG and IO
        *("2", "4", "6.1", "7", "128", "77.1.1", "77.1.4"),  # CT, MR, US, SC, PET, VL endoscopic and photographic
    )
)
_BEHIND_HEADER = 64  # the pixel data element's own tag, VR and length, and an empty offset table
_BLOCK = 1024 * 1024
_FETCHED_AT_ONCE = 16


class StoredFile:
    """Bytes of one stored Part 10 file."""

    def __init__(
        self, store: ObjectStore, location: InstanceLocation, size: int, content: bytes | Inflated | None = None
    ) -> None:
        self._store, self._content = store, content
        self._path: Path | None = None
        self.location, self.size = location, size

    @property
    def has_one_frame(self) -> bool:
        """True when the SOP class has no multi-frame images: the file is little more than that frame."""
        return self.location.sop_class_uid in _ONE_FRAME_CLASSES

    @property
    def path(self) -> Path | None:
        """The file on this machine that has these bytes, if there is one."""
        if self._content is not None:
            return None
        if self._path is None and isinstance(self._store, LocalObjects):
            self._path = self._store.file(self.location.object_name)
        return self._path

    async def get(self, start: int, length: int) -> bytes:
        """Read a range into memory."""
        if self._content is not None:
            return bytes(memoryview(self._content)[start : start + length])
        return await self._store.get(self.location.object_name, start, length)

    async def stored_length(self) -> int:
        """Length of the object as it is now, whatever is recorded. Raises ``NotFound`` when it has vanished."""
        if isinstance(self._store, LocalObjects):
            length = await self._store.file_length(self.location.object_name)
            if length is not None:
                return length
        info = await self._store.head(self.location.object_name)
        if info is None:
            raise NotFound(f"the object of instance {self.location.sop_instance_uid} is not in the storage space")
        return info.size

    async def stream(self, start: int, length: int) -> AsyncIterator[bytes]:
        """Read a range as blocks of about 1 MiB."""
        if self._content is None:
            async for block in self._store.stream(self.location.object_name, start, length):
                yield block
            return
        for position in range(start, start + length, _BLOCK):
            yield bytes(memoryview(self._content)[position : min(position + _BLOCK, start + length)])

    async def inspect(
        self, work: Callable[[RangeFile], T], *, values_follow: bool = False, at_once: AtOnce[T] | None = None
    ) -> T:
        """Run blocking work over the file in a thread; the header is fetched beforehand, the rest as touched. Raises
        ``OutOfResources`` when too much such work waits.

        ``values_follow``: what is found will be read next, so a small file is fetched whole, in one round trip.
        ``at_once``: tried before, with a header of at most ``LONGEST_HEAD`` bytes and the file's length, in the event
        loop; None says that the work has to be done.
        """
        if values_follow and self._content is None and self.size <= SMALL_FILE:
            self._content = await self.get(0, self.size)
        offset = self.location.pixel_data_offset
        wanted = HEAD_BYTES if offset is None else offset + _BEHIND_HEADER
        head = await self.get(0, min(wanted, self.size, LARGEST_HEAD))
        if at_once is not None and len(head) <= LONGEST_HEAD:
            found = at_once(head, self.size)
            if found is not None:
                return found
        if self._content is not None:
            head = await self.get(0, HEAD_BYTES)

        def inspected(fetches: Fetches) -> T:
            def fetch(start: int, length: int) -> bytes:
                return fetches.get(self.get(start, length))

            def fetch_many(starts: Sequence[int], length: int) -> list[bytes]:
                return fetches.get(self._get_many(starts, length))

            return work(RangeFile(head, self.size, fetch, fetch_many=fetch_many))

        return await INSPECTIONS.run(inspected)

    async def _get_many(self, starts: Sequence[int], length: int) -> list[bytes]:
        turns = asyncio.Semaphore(_FETCHED_AT_ONCE)

        async def one(start: int) -> bytes:
            async with turns:
                return await self.get(start, length)

        return await asyncio.gather(*map(one, starts))


async def open_stored(store: ObjectStore, location: InstanceLocation) -> StoredFile:
    """Open for reading inside the file. Raises ``NotFound`` when the object has vanished."""
    if encoding_of(location.transfer_syntax_uid).deflated:
        content = await inflated(store, location)
        return StoredFile(store, location, len(content), content)
    return StoredFile(store, location, await stored_size(store, location))


async def stored_size(store: ObjectStore, location: InstanceLocation) -> int:
    """Length of the stored file in bytes."""
    if location.size is not None:
        return location.size
    info = await store.head(location.object_name)
    if info is None:
        raise NotFound(f"the object of instance {location.sop_instance_uid} is not in the storage space")
    return info.size

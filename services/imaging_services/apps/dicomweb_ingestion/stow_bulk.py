"""The bulk data parts of one STOW-RS request: in one spool, found again by their Content-Location."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from starlette.exceptions import HTTPException

from imaging_services.domain.dicom.bulk_media import FIRST_LOOK, codestream_offset, pixel_transfer_syntax
from imaging_services.domain.dicom.media_types import OCTET_STREAM, MediaRange
from imaging_services.domain.dicom.model_encoder import BulkValue, Piece, Span
from imaging_services.domain.errors import InvalidInput, UnsupportedTransferSyntax
from imaging_services.domain.ports import Spool

MAX_PARTS = 100_000
"""Most bulk data parts of a request."""
_REPEATED, _REPEATED_BYTES = 4, 4 << 30
_BLOCK = 1024 * 1024
_FRAMES = re.compile(r"(.+)/frames/([0-9]{1,8})")


@dataclass(slots=True)
class BulkPart:
    """A part: its media type and where it lies in the spool. ``frame``: of ``…/frames/{number}``.

    ``transfer_syntax`` is that of compressed pixel data, which begins at ``skipped``; ``error`` says why it cannot be
    told.
    """

    media_type: MediaRange
    start: int
    frame: int
    length: int = 0
    transfer_syntax: str | None = None
    skipped: int = 0
    error: UnsupportedTransferSyntax | None = None
    _head: bytearray = field(default_factory=bytearray)

    @property
    def span(self) -> Span:
        """All of it."""
        return Span(self.start, self.length)

    @property
    def codestream(self) -> Span:
        """The compressed image."""
        return Span(self.start + self.skipped, self.length - self.skipped)

    @property
    def is_pixel_data(self) -> bool:
        """An image or a video, or octets that name a transfer syntax."""
        named = self.media_type.type == OCTET_STREAM and self.media_type.transfer_syntax not in (None, "*")
        return named or self.media_type.type.startswith(("image/", "video/"))

    def add(self, block: bytes) -> None:
        """Count bytes, and look at the first of them."""
        self.length += len(block)
        if self.is_pixel_data and len(self._head) < FIRST_LOOK:
            self._head += block[: FIRST_LOOK - len(self._head)]

    def end(self) -> None:
        """Tell what the part is; its beginning is not kept."""
        if self.is_pixel_data:
            head = bytes(self._head)
            try:
                self.transfer_syntax = pixel_transfer_syntax(self.media_type, head)
                self.skipped = codestream_offset(head)
            except UnsupportedTransferSyntax as error:
                self.error = error
        self._head.clear()


@dataclass(slots=True)
class Resolver:
    """Finds the values of one instance that has ``frames``, and remembers the transfer syntax that its pixel data
    says."""

    parts: Callable[[str], Sequence[BulkPart]]
    frames: int
    transfer_syntax: str | None = None

    def __call__(self, uri: str) -> BulkValue:
        """The value of a BulkDataURI. Raises ``InvalidInput``, ``UnsupportedTransferSyntax``."""
        parts = self.parts(uri)
        if len(parts) > 1 and len(parts) != self.frames and not parts[0].media_type.type.startswith("video/"):
            # They may be another instance's too, or one is missing.
            raise InvalidInput(f"{len(parts)} parts of one Content-Location for an instance of {self.frames} frames")
        for part in parts:
            if part.error is not None:
                raise part.error
        syntaxes = {part.transfer_syntax for part in parts}
        if syntaxes == {None}:
            return BulkValue([part.span for part in parts])
        if len(syntaxes | {self.transfer_syntax} - {None}) > 1:
            raise UnsupportedTransferSyntax("the instance has pixel data in several transfer syntaxes")
        (self.transfer_syntax,) = syntaxes
        return BulkValue([part.codestream for part in parts], encapsulated=True)


class BulkParts:
    """Parts as they come, then by location; several of one location are its frames, in their order."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._parts: dict[str, list[BulkPart]] = {}
        self._open: BulkPart | None = None
        self._count = 0
        self._body: bytes | Path = b""

    @property
    def is_open(self) -> bool:
        """A part has begun and not ended."""
        return self._open is not None

    def begin(self, location: str, media_type: MediaRange) -> None:
        """A part begins. Raises ``InvalidInput`` when there are too many."""
        self._count += 1
        if self._count > MAX_PARTS:
            raise InvalidInput(f"more than {MAX_PARTS} bulk data parts")
        framed = _FRAMES.fullmatch(location)
        frame = int(framed[2]) if framed else self._count
        self._open = BulkPart(media_type, self._spool.size, frame)
        for place in {location, framed[1] if framed else location}:
            self._parts.setdefault(place, []).append(self._open)

    async def add(self, block: bytes) -> None:
        """Bytes of the open part."""
        assert self._open is not None  # a part begins before its bytes
        self._open.add(block)
        await self._spool.write(block)

    def end(self) -> None:
        """The open part is complete, if there is one."""
        if self._open is not None:
            self._open.end()
        self._open = None

    async def complete(self) -> None:
        """All parts have come."""
        self._body = await self._spool.body()

    def part(self, location: str) -> BulkPart:
        """The first part of a location. Raises ``InvalidInput``."""
        return self._found(location)[0]

    def resolver(self, absolute: Callable[[str], str], frames: int) -> Resolver:
        """For one instance of so many frames; ``absolute`` makes locations of its URIs."""
        return Resolver(lambda uri: self._found(absolute(uri)), frames)

    def require_fitting(self, locations: Mapping[str, int], max_body: int | None) -> None:
        """Check how often each location is referred to. Raises ``InvalidInput`` when some part is at none of them and
        would be thrown away, HTTP 413 when parts that are referred to again and again make more than a request may
        have: ``max_body`` bytes, by default 4 GiB, or four times what has come."""
        stored = sum(
            times * part.length for location, times in locations.items() for part in self._parts.get(location, ())
        )
        most = max(_REPEATED * self._spool.size, _REPEATED_BYTES) if max_body is None else max_body
        if stored > most:
            raise HTTPException(413, f"the instances refer to {stored} bytes of bulk data, more than {most}")
        used = len({id(part) for location in locations for part in self._parts.get(location, ())})
        if used < self._count:
            raise InvalidInput(f"{self._count - used} parts of bulk data have no BulkDataURI in the metadata")

    def _found(self, location: str) -> list[BulkPart]:
        parts = self._parts.get(location)
        if not parts:
            raise InvalidInput("no part has the Content-Location of a BulkDataURI")
        return sorted(parts, key=lambda part: part.frame)

    async def stream(self, pieces: Sequence[Piece]) -> AsyncIterator[bytes]:
        """The bytes of a data set, with those that lie in the spool."""
        for piece in pieces:
            if isinstance(piece, bytes):
                yield piece
                continue
            for start in range(piece.start, piece.start + piece.length, _BLOCK):
                yield await self._read(start, min(_BLOCK, piece.start + piece.length - start))

    async def _read(self, start: int, length: int) -> bytes:
        if isinstance(self._body, bytes):
            return self._body[start : start + length]
        return await asyncio.to_thread(_read_range, self._body, start, length)


def _read_range(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)

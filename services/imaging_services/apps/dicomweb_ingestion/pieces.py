"""Sending parts of stored files one after the other, the next ones read while one is written."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import Protocol, runtime_checkable

from imaging_services.adapters.http.files import FileGone, Segment
from imaging_services.apps.dicomweb_ingestion.read_ahead import in_order
from imaging_services.domain.budget import ByteBudget
from imaging_services.domain.dicom.byte_order import ByteSwapper, swapped
from imaging_services.domain.dicom.pixel_layout import align_bits
from imaging_services.domain.errors import BackendUnavailable
from imaging_services.domain.retrieve.stored_file import StoredFile

Write = Callable[[bytes], Awaitable[None]]

IN_MEMORY_BYTES = 8 * 1024 * 1024
"""Longer pieces are streamed when their turn comes."""

ALONE_BYTES = 1024 * 1024
"""A piece that is alone and no longer than this is read at once: a file of this machine too, which costs one change of
thread instead of two and the setting up of a transmission."""

_JOIN_BYTES = 64 * 1024
_FILES_AT_ONCE = 32
"""Files that the server is given at a time."""


@runtime_checkable
class FileWriter(Protocol):
    """A ``Write`` that may be able to send files of this machine without reading them."""

    @property
    def takes_files(self) -> bool: ...

    async def send_files(self, segments: Sequence[Segment], length: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Piece:
    """``lead`` (delimiter and part headers), then ``length`` bytes of the file from ``start``.

    ``swap``: word size of a byte order to be turned. ``bits``: keep so many bits after ``shift``, when not 0.
    """

    lead: bytes
    file: StoredFile
    start: int
    length: int
    swap: int = 1
    shift: int = 0
    bits: int = 0

    @property
    def sent(self) -> int:
        """How many bytes it makes."""
        return len(self.lead) + ((self.bits + 7) // 8 if self.bits else self.length)

    @property
    def is_file(self) -> bool:
        """True when its bytes are sent as they are in a file of this machine."""
        return self.swap == 1 and not self.bits and self.file.path is not None


class PieceSender:
    """Shared by all requests, so that what they read ahead is bounded together."""

    def __init__(self, budget: ByteBudget, ahead: int) -> None:
        self._budget, self._ahead = budget, ahead

    async def send(self, pieces: Iterable[Piece], write: Write) -> None:
        """Write every piece. Raises before the first byte when the first piece cannot be read."""
        first = list(islice(pieces := iter(pieces), 2))
        if len(first) == 1 and first[0].length <= ALONE_BYTES and self._budget.try_take(first[0].length):
            try:
                await _write_block(first[0], await _read(first[0]), write)
            finally:
                self._budget.give_back(first[0].length)
            return
        pieces = chain(first, pieces)
        if not (isinstance(write, FileWriter) and write.takes_files):
            await self._send_read(pieces, write)
            return
        checked = False
        for is_file, some in groupby(pieces, lambda piece: piece.is_file):
            if not is_file:
                await self._send_read(some, write)
            while is_file and (batch := list(islice(some, _FILES_AT_ONCE))):
                if not checked:
                    await _require(batch[0])
                await self._send_files(batch, write)
                checked = True
            checked = True

    async def _send_files(self, batch: Sequence[Piece], write: Write) -> None:
        assert isinstance(write, FileWriter)  # asked before
        try:
            await write.send_files([_segment(piece) for piece in batch], sum(piece.sent for piece in batch))
        except FileGone as gone:  # a cache threw its copy out; what a folder has lost is not found by reading either
            await self._send_read(batch[-gone.unsent :], write)

    async def _send_read(self, pieces: Iterable[Piece], write: Write) -> None:
        held: dict[int, int] = {}

        async def prepare(piece: Piece) -> tuple[Piece, bytes | None]:
            if not _in_memory(piece) or not (piece.bits or self._budget.try_take(piece.length)):
                return piece, None
            held[id(piece)] = 0 if piece.bits else piece.length
            return piece, await _read(piece)

        async def emit(prepared: tuple[Piece, bytes | None]) -> None:
            piece, block = prepared
            try:
                await (_write_block(piece, block, write) if block is not None else _stream(piece, write))
            finally:
                self._budget.give_back(held.pop(id(piece), 0))

        try:
            await in_order(pieces, prepare, emit, ahead=self._ahead)
        finally:
            self._budget.give_back(sum(held.values()))


async def _require(piece: Piece) -> None:
    """Raise ``NotFound`` or ``BackendUnavailable`` unless the piece is there."""
    if await piece.file.stored_length() < piece.start + piece.length:
        raise _short(piece)


def _segment(piece: Piece) -> Segment:
    path = piece.file.path
    assert path is not None  # asked before
    return Segment(piece.lead, path, piece.start, piece.length)


def _in_memory(piece: Piece) -> bool:
    return piece.length <= IN_MEMORY_BYTES or piece.bits > 0


async def _read(piece: Piece) -> bytes:
    block = await piece.file.get(piece.start, piece.length)
    if len(block) != piece.length:
        raise _short(piece)
    if piece.swap > 1 and len(block) % piece.swap == 0:
        block = swapped(block, piece.swap)
    return align_bits(block, piece.shift, piece.bits) if piece.bits else block


async def _write_block(piece: Piece, block: bytes, write: Write) -> None:
    if len(block) <= _JOIN_BYTES:
        await write(piece.lead + block)
        return
    if piece.lead:
        await write(piece.lead)
    await write(block)


async def _stream(piece: Piece, write: Write) -> None:
    swapper = ByteSwapper(piece.swap) if piece.swap > 1 else None
    lead, sent = piece.lead, 0
    async for block in piece.file.stream(piece.start, piece.length):
        if lead:
            await write(lead)
            lead = b""
        sent += len(block)
        await write(swapper.feed(block) if swapper else block)
    if sent != piece.length:
        raise _short(piece)
    rest = swapper.end() if swapper else b""
    if lead or rest:
        await write(lead + rest)


def _short(piece: Piece) -> BackendUnavailable:
    return BackendUnavailable(f"the object {piece.file.location.object_name} is shorter than the manifest says")

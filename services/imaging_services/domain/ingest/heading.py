"""The head of an instance: enough of the data set to write its file meta header, then its whole header."""

import asyncio
import contextlib
import mmap
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from imaging_services.domain.dicom.elements import (
    SERIES_INSTANCE_UID,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    Header,
    guess_encoding,
    scan,
)
from imaging_services.domain.dicom.part10 import file_meta
from imaging_services.domain.dicom.sequences import Buffer
from imaging_services.domain.dicom.shared_elements import scan_known
from imaging_services.domain.dicom.transfer_syntaxes import (
    Encoding,
    encoding_of,
    is_encapsulated,
    native_transfer_syntax,
)
from imaging_services.domain.dicom.uids import is_uid, require_uid
from imaging_services.domain.errors import NotDicom

log = structlog.get_logger(__name__)

FIRST_LOOK = 64 * 1024
"""Bytes of the data set that are looked at first; most headers end earlier."""
LONGEST_LOOK = 1024 * 1024
"""Bytes looked at while receiving; a longer header is read from the spool at the end."""
SCAN_OFF_LOOP = 256 * 1024
"""From this many bytes on, a scan is worth a thread."""
MAX_INFLATED = 16 * 1024 * 1024
"""Most bytes of a deflated data set that are inflated to read its header."""


@dataclass(frozen=True, slots=True)
class Heading:
    """What is known of an instance from its head.

    ``meta`` is the file meta header to store, ``head`` the bytes of the data set read so far, ``transfer_syntax`` what
    is recorded. ``declared`` differs from it when the data set is plainly in another encoding.
    """

    header: Header
    encoding: Encoding
    transfer_syntax: str
    declared: str
    meta: bytes
    head: bytes
    ended: bool

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID (0008,0016)."""
        return self.header.uid(SOP_CLASS_UID)

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID (0008,0018)."""
        return self.header.uid(SOP_INSTANCE_UID)

    @property
    def study_instance_uid(self) -> str:
        """Study Instance UID (0020,000D)."""
        return self.header.uid(STUDY_INSTANCE_UID)

    @property
    def series_instance_uid(self) -> str:
        """Series Instance UID (0020,000E)."""
        return self.header.uid(SERIES_INSTANCE_UID)

    @property
    def pixel_data_offset(self) -> int | None:
        """Position of the Pixel Data element in the file, None without one and in deflated data sets."""
        position = self.header.pixel_data
        return None if position is None or self.encoding.deflated else len(self.meta) + position


async def take_heading(blocks: AsyncIterator[bytes], declared: str) -> Heading:
    """Read blocks until the header is complete, or for at most ``LONGEST_LOOK``.

    Raises ``NotDicom``, and ``MissingIdentifier`` when SOP Class or SOP Instance UID is not among them.
    """
    head, target = b"", FIRST_LOOK
    while True:
        head, ended = await read_ahead(blocks, head, target)
        header, encoding = look(head, declared, ended=ended)
        if ended or header.complete or len(head) >= LONGEST_LOOK:
            break
        target = min(4 * len(head), LONGEST_LOOK)
    if header.complete and header.uid(SOP_INSTANCE_UID):
        _require_place(header)
    return _heading(header, encoding, declared, head, ended=ended)


def heading_within(head: bytes, declared: str, *, ended: bool) -> Heading | None:
    """The heading of a data set that begins with ``head``; None when its header goes on behind these bytes.

    ``ended`` says that ``head`` is the whole data set. Raises ``NotDicom``, and ``MissingIdentifier`` for each of the
    four UIDs.
    """
    header, encoding = look(head, declared, ended=ended)
    if not header.complete:
        return None
    _require_place(header)
    return _heading(header, encoding, declared, head, ended=ended)


async def read_ahead(blocks: AsyncIterator[bytes], head: bytes, target: int) -> tuple[bytes, bool]:
    """``head`` and the blocks up to ``target`` bytes, and whether there are no more. One block alone is not copied."""
    parts, size = [head] if head else [], len(head)
    while size < target:
        block = await anext(blocks, None)
        if block is None:
            return b"".join(parts), True
        parts.append(block)
        size += len(block)
    return b"".join(parts), False


def look(head: Buffer, declared: str, *, ended: bool) -> tuple[Header, Encoding]:
    """Scan what there is, with the encoding of the declared transfer syntax.

    When the first element plainly has another encoding, and reading it that way finds the SOP Instance UID, the data
    set was declared wrongly and is read as it is: refusing it would lose an instance that everybody can read.
    """
    encoding = encoding_of(declared)
    guess = guess_encoding(bytes(head[:8]))
    if guess != encoding and not _is_deflated(head, encoding):
        with contextlib.suppress(NotDicom):
            header = scan_known(head, guess, ended=ended)
            if is_uid(header.uid(SOP_INSTANCE_UID)):
                return header, guess
    if not encoding.deflated:
        return scan_known(head, encoding, ended=ended), encoding
    inflated, whole = _inflate(head)
    return scan(inflated, encoding, ended=ended and (whole or len(inflated) < MAX_INFLATED)), encoding


def _is_deflated(head: Buffer, encoding: Encoding) -> bool:
    """True when the data set should be deflated and begins as if it were."""
    if not encoding.deflated:
        return False
    try:
        return len(zlib.decompressobj(-zlib.MAX_WBITS).decompress(head[:FIRST_LOOK], 8)) == 8
    except zlib.error:
        return False


def _inflate(deflated: Buffer) -> tuple[bytes, bool]:
    """The first ``MAX_INFLATED`` bytes of a deflated data set, and whether they are all. Raises ``NotDicom``."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = bytearray()
    try:
        for start in range(0, len(deflated), FIRST_LOOK):
            piece = deflated[start : start + FIRST_LOOK]
            inflated += inflater.decompress(piece, MAX_INFLATED - len(inflated))
            if inflater.eof or len(inflated) >= MAX_INFLATED:
                break
    except zlib.error as error:
        raise NotDicom(f"the deflated data set cannot be inflated: {error}") from None
    return bytes(inflated), inflater.eof


def _heading(header: Header, encoding: Encoding, declared: str, head: bytes, *, ended: bool) -> Heading:
    if not header.elements or not any(map(header.uid, (SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID))):
        raise NotDicom("no data set: none of the UIDs that identify an instance can be read")
    transfer_syntax = _recorded(declared, encoding)
    meta = file_meta(
        sop_class_uid=require_uid("SOPClassUID", header.uid(SOP_CLASS_UID)),
        sop_instance_uid=require_uid("SOPInstanceUID", header.uid(SOP_INSTANCE_UID)),
        transfer_syntax=transfer_syntax,
    )
    return Heading(header, encoding, transfer_syntax, declared, meta, head, ended)


def _require_place(header: Header) -> None:
    """Raise ``MissingIdentifier`` unless the instance says which series of which study it belongs to."""
    require_uid("StudyInstanceUID", header.uid(STUDY_INSTANCE_UID))
    require_uid("SeriesInstanceUID", header.uid(SERIES_INSTANCE_UID))


def _recorded(declared: str, encoding: Encoding) -> str:
    """The transfer syntax to record: the declared one, or for a wrongly declared native one what the bytes are.

    With encapsulated pixel data the declared one stays whatever the header's encoding, since it says how the pixel
    data is compressed.
    """
    if encoding == encoding_of(declared) or is_encapsulated(declared):
        return declared
    return native_transfer_syntax(encoding)


async def complete_heading(heading: Heading, body: bytes | Path) -> Heading:
    """The heading with its whole header, read from the finished file when it was longer than the first look.

    Raises ``NotDicom``, and ``MissingIdentifier`` for each of the four UIDs.
    """
    if heading.header.complete:
        return heading
    size = len(body) if isinstance(body, bytes) else SCAN_OFF_LOOP
    return await asyncio.to_thread(_rescan, heading, body) if size >= SCAN_OFF_LOOP else _rescan(heading, body)


def _rescan(heading: Heading, body: bytes | Path) -> Heading:
    start = len(heading.meta)
    if isinstance(body, bytes):
        with memoryview(body) as view, view[start:] as data_set:
            header, _ = look(data_set, heading.declared, ended=True)
    else:
        with (
            body.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as view,
            view[start:] as data_set,
        ):
            header, _ = look(data_set, heading.declared, ended=True)
    _require_place(header)
    return _heading(header, heading.encoding, heading.declared, heading.head, ended=True)

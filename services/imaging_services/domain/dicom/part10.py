"""Part 10 files (PS3.10 section 7): reading what peers send, and writing the one header that we write."""

import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass

from imaging_services.domain.dicom.elements import guess_encoding
from imaging_services.domain.dicom.sequences import LONG_VRS, SHORT_VRS
from imaging_services.domain.dicom.transfer_syntaxes import native_transfer_syntax
from imaging_services.domain.dicom.uids import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    clean_uid,
    is_uid,
)
from imaging_services.domain.errors import NotDicom

PREAMBLE_LENGTH = 128
MAX_META_LENGTH = 1 << 20
"""Longest file meta group that is read, in bytes; it may hold private information (0002,0102)."""

_PREFIX = b"DICM"
_TRANSFER_SYNTAX_UID = 0x0010
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class FileHead:
    """What stands before the data set: where the data set begins, and its transfer syntax as the file says it.

    The transfer syntax is None when the file has no meta header or the header does not name one.
    """

    data_set: int
    transfer_syntax: str | None


def file_meta(*, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str) -> bytes:
    """Preamble, prefix and file meta header of a file that we store (PS3.10 section 7.1).

    Frozen: the same data set must give the same file, digest and key for ever, whatever road it came by. So it names
    no AE title and no time, the preamble is zero, and the identification of the implementation never changes.
    """
    elements = b"".join(
        (
            _element(0x0001, b"OB", b"\x00\x01"),
            _element(0x0002, b"UI", _padded(sop_class_uid, b"\x00")),
            _element(0x0003, b"UI", _padded(sop_instance_uid, b"\x00")),
            _element(0x0010, b"UI", _padded(transfer_syntax, b"\x00")),
            _element(0x0012, b"UI", _padded(IMPLEMENTATION_CLASS_UID, b"\x00")),
            _element(0x0013, b"SH", _padded(IMPLEMENTATION_VERSION_NAME, b" ")),
        )
    )
    return bytes(PREAMBLE_LENGTH) + _PREFIX + _element(0x0000, b"UL", struct.pack("<L", len(elements))) + elements


def _padded(text: str, padding: bytes) -> bytes:
    value = text.encode("ascii")
    return value + padding if len(value) % 2 else value


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    if vr == b"OB":
        return struct.pack("<HH2sHL", 0x0002, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value


def read_file_head(head: bytes | bytearray, *, ended: bool) -> FileHead | None:
    """Find the data set in the first bytes of a file; None when more bytes are needed to tell.

    Tolerant: the preamble, the prefix, the group length or the whole meta header may be missing, and the meta header
    may be Implicit VR. The group length is not believed; the group ends where another begins. Raises ``NotDicom`` when
    the bytes begin neither with a meta header nor with a data set, or the meta header breaks off.
    """
    start = _meta_start(head)
    if start is None:
        if len(head) < PREAMBLE_LENGTH + 12 and not ended:
            return None
        _require_data_set(head)
        return FileHead(data_set=0, transfer_syntax=None)
    return _walk_meta(head, start, ended=ended)


def _meta_start(head: bytes | bytearray) -> int | None:
    if head[PREAMBLE_LENGTH : PREAMBLE_LENGTH + 4] == _PREFIX:
        return PREAMBLE_LENGTH + 4
    if head[:4] == _PREFIX:
        return 4
    return 0 if head[:2] == b"\x02\x00" else None


def _require_data_set(head: bytes | bytearray) -> None:
    """A data set without any header begins with a group below 0x0100 in one of the byte orders."""
    if len(head) >= 8:
        encoding = guess_encoding(head)
        group = int.from_bytes(head[:2], "little" if encoding.little_endian else "big")
        if 0 < group < 0x0100 and group % 2 == 0:
            return
    raise NotDicom("neither a DICOM file nor a data set")


def _walk_meta(head: bytes | bytearray, position: int, *, ended: bool) -> FileHead | None:
    transfer_syntax = None
    while True:
        if len(head) - position < 2 or (head[position : position + 2] == b"\x02\x00" and len(head) - position < 12):
            if ended and len(head) == position:
                return FileHead(position, transfer_syntax)
            _require_more(head, ended=ended)
            return None
        if head[position : position + 2] != b"\x02\x00":
            return FileHead(position, transfer_syntax)
        element, length, start = _meta_element(head, position)
        if length == _UNDEFINED or length > MAX_META_LENGTH:
            raise NotDicom(f"broken file meta header: length of element (0002,{element:04X})")
        if start + length > len(head):
            _require_more(head, ended=ended)
            return None
        if element == _TRANSFER_SYNTAX_UID:
            value = clean_uid(head[start : start + length])
            transfer_syntax = value if is_uid(value) else None
        position = start + length


def _require_more(head: bytes | bytearray, *, ended: bool) -> None:
    if ended or len(head) > MAX_META_LENGTH:
        raise NotDicom("broken file meta header: it does not end")


def _meta_element(head: bytes | bytearray, position: int) -> tuple[int, int, int]:
    """Element number, value length and value position of the meta element at ``position``."""
    element, vr, length = struct.unpack_from("<H2sH", head, position + 2)
    if vr in LONG_VRS:
        return element, struct.unpack_from("<L", head, position + 8)[0], position + 12
    if vr in SHORT_VRS:
        return element, length, position + 8
    return element, struct.unpack_from("<L", head, position + 4)[0], position + 8


class Part10Stream:
    """The data set within a stream of a Part 10 file's bytes: iterate it after ``open``."""

    def __init__(self, blocks: AsyncIterator[bytes]) -> None:
        self._blocks = blocks
        self._head = bytearray()
        self.transfer_syntax = ""

    async def open(self, declared: str | None = None) -> str:
        """Read up to the data set; returns its transfer syntax.

        The file's own meta header says it, else ``declared``, else the look of the first element. Raises ``NotDicom``.
        """
        found, ended = None, False
        while found is None:
            block = await anext(self._blocks, None)
            ended = block is None
            self._head += block or b""
            found = read_file_head(self._head, ended=ended)
        del self._head[: found.data_set]
        while not ended and len(self._head) < 8:
            block = await anext(self._blocks, None)
            ended = block is None
            self._head += block or b""
        self.transfer_syntax = found.transfer_syntax or declared or native_transfer_syntax(guess_encoding(self._head))
        return self.transfer_syntax

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._head:
            yield bytes(self._head)
            self._head = bytearray()
        async for block in self._blocks:
            yield block

"""Frames of encapsulated Pixel Data: offset tables, or a scan of the fragments (PS3.5 annex A.4)."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from imaging_services.domain.dicom.range_file import BLOCK, RangeFile
from imaging_services.domain.errors import NotFound

_ITEM = 0xFFFEE000
_SEQUENCE_DELIMITER = 0xFFFEE0DD
# The end of a code stream: EOI of JPEG and JPEG-LS, EOC of JPEG 2000 (ISO/IEC 10918-1, 14495-1, 15444-1).
_END_MARKER = b"\xff\xd9"

_HEADS = 4096  # bytes read at an item whose value is not wanted: its head, and maybe the next items

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Encapsulation:
    """For each frame the spans of its fragments' values."""

    spans: Sequence[Sequence[Span]]

    @property
    def frames(self) -> int:
        """How many frames were found."""
        return len(self.spans)

    def frame(self, number: int) -> Sequence[Span]:
        """Fragments of frame ``number``, from 1."""
        return self.spans[number - 1]


def read_encapsulation(
    file: RangeFile, value: int, frames: int, extended: tuple[Sequence[int], Sequence[int]] | None
) -> Encapsulation:
    """Find the fragments of each frame; ``value`` is where the Basic Offset Table's item begins.

    Raises ``NotFound`` when the structure is broken.
    """
    tag, length = _item(file, value)
    if tag != _ITEM or length % 4:
        raise NotFound("the encapsulated pixel data does not begin with a Basic Offset Table")
    base = value + 8 + length
    if extended is not None and len(extended[0]) == frames:
        # One fragment a frame (PS3.3 section C.7.6.3.1.8): no need to look at the fragments.
        return Encapsulation([[(base + at + 8, size)] for at, size in zip(*extended, strict=True)])
    fragments = list(_fragments(file, base))
    if frames == 1:
        return Encapsulation([fragments])
    table = struct.unpack(f"<{length // 4}I", file.read_at(value + 8, length))
    return Encapsulation(_by_table(fragments, base, table) or _by_content(file, fragments, frames))


def end_of_fragments(file: RangeFile, value: int, last_offset: int | None) -> int | None:
    """The position behind the Sequence Delimitation Item; None when the structure is broken.

    ``value`` is where the Basic Offset Table's item begins, ``last_offset`` what the Extended Offset Table says of the
    last frame. Either table saves the walk to that frame when an item is where it says.
    """
    try:
        tag, length = _item(file, value)
        base = value + 8 + length
        if tag != _ITEM:
            return None
        if last_offset is None and length >= 4:
            last_offset = int.from_bytes(file.read_at(base - 4, 4, ahead=4), "little")
        end = None if last_offset is None else _walked(file, base + last_offset)
        return end or _walked(file, base)
    except NotFound:
        return None


def _walked(file: RangeFile, position: int) -> int | None:
    """The end of the fragments from ``position`` on. Only the heads of large ones are read."""
    ahead = _HEADS
    while position + 8 < file.size:
        tag, length = _item(file, position, ahead)
        position += 8
        if tag == _SEQUENCE_DELIMITER:
            return position
        if tag != _ITEM:
            return None
        position += length
        ahead = BLOCK if length < BLOCK else _HEADS
    return file.size if position + 8 == file.size else None  # nothing can follow: no need to look


def _fragments(file: RangeFile, position: int) -> Iterator[Span]:
    """Offset and length of each fragment's value, to the Sequence Delimitation Item or the end of the file."""
    while position + 8 <= file.size:
        tag, length = _item(file, position)
        if tag == _SEQUENCE_DELIMITER:
            return
        if tag != _ITEM or position + 8 + length > file.size:
            raise NotFound(f"the encapsulated pixel data is broken at byte {position} of the file")
        yield position + 8, length
        position += 8 + length


def _item(file: RangeFile, position: int, ahead: int = BLOCK) -> tuple[int, int]:
    head = file.read_at(position, 8, ahead=ahead)
    if len(head) < 8:
        raise NotFound("the stored file ends within its pixel data")
    group, element, length = struct.unpack("<HHI", head)
    return group << 16 | element, length


def _by_table(fragments: Sequence[Span], base: int, table: Sequence[int]) -> list[list[Span]] | None:
    """Group by the Basic Offset Table; None when it is empty or does not fit the fragments."""
    starts = {offset: index for index, offset in enumerate(table)}
    if not table or table[0] != 0 or len(starts) != len(table):
        return None
    frames: list[list[Span]] = [[] for _ in table]
    current = -1
    for offset, length in fragments:
        current = starts.pop(offset - 8 - base, current)
        frames[current].append((offset, length))
    return None if starts else frames


def _by_content(file: RangeFile, fragments: Sequence[Span], frames: int) -> list[list[Span]]:
    """Without a table: one fragment a frame, or frames that end where a code stream ends."""
    if len(fragments) == frames:
        return [[fragment] for fragment in fragments]
    if len(fragments) < frames:
        raise NotFound(f"the pixel data has {len(fragments)} fragments for {frames} frames")
    groups: list[list[Span]] = [[]]
    for offset, length in fragments:
        groups[-1].append((offset, length))
        if _END_MARKER in file.read_at(offset + max(0, length - 10), min(length, 10)):
            groups.append([])
    groups = [group for group in groups if group]
    if len(groups) != frames:
        raise NotFound(f"the frames cannot be told apart: no offset table, {len(fragments)} fragments")
    return groups

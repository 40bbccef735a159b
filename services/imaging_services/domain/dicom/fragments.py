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

_HEAD = struct.Struct("<HHI")
_SHORT_FRAGMENT = 16 * 1024  # to read shorter ones together takes less time than to ask for the head of each
_LONGEST_TABLE = 64 * 1024 * 1024
_CHECKED = 1024  # so many entries of an offset table are looked up; of a longer one, so many spread over it

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
    if base > file.size or length > _LONGEST_TABLE:
        raise NotFound("the Basic Offset Table does not end within the file, or is too long")
    table = struct.unpack(f"<{length // 4}I", file.read_at(value + 8, length, ahead=length))
    if extended is not None and len(extended[0]) == frames:
        # One fragment a frame (PS3.3 section C.7.6.3.1.8).
        spans = [(base + at + 8, size) for at, size in zip(*extended, strict=True)]
        if _are_items(file, spans):
            return Encapsulation([[span] for span in spans])
    elif len(table) == frames > 1 and table[0] == 0:
        # One fragment a frame, if each reaches to where the next begins.
        ends = [*(base + at for at in table[1:]), _last_end(file, base + table[-1])]
        spans = [(base + at + 8, end - base - at - 8) for at, end in zip(table, ends, strict=True)]
        if _are_items(file, spans):
            return Encapsulation([[span] for span in spans])
    fragments = list(_fragments(file, base))
    if frames == 1:
        return Encapsulation([fragments])
    return Encapsulation(_by_table(fragments, base, table) or _by_content(file, fragments, frames))


def _last_end(file: RangeFile, position: int) -> int:
    """Where the item at ``position`` ends; the position itself when there is none."""
    if position + 8 > file.size:
        return position
    (head,) = file.read_many([position], 8)
    return position + 8 + _HEAD.unpack(head)[2] if len(head) == 8 else position


def _are_items(file: RangeFile, spans: Sequence[Span]) -> bool:
    """True when an offset table is right: there is an item of that length before each span. Padding may be left out of
    a length (PS3.3 section C.7.6.3.1.8). Of a very long table some entries, spread over it, stand for all."""
    step = -(-len(spans) // _CHECKED)
    checked = [*spans[::step], spans[-1]]
    if any(length <= 0 or start + length > file.size for start, length in spans):
        return False
    heads = file.read_many([start - 8 for start, _ in checked], 8)
    for head, (_, length) in zip(heads, checked, strict=True):
        if len(head) < 8:
            return False
        group, element, found = _HEAD.unpack(head)
        if group << 16 | element != _ITEM or found not in (length, length + length % 2):
            return False
    return True


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
    ahead = 8
    while position + 8 < file.size:
        tag, length = _item(file, position, ahead)
        position += 8
        if tag == _SEQUENCE_DELIMITER:
            return position
        if tag != _ITEM:
            return None
        position += length
        ahead = _ahead(length)
    return file.size if position + 8 == file.size else None  # nothing can follow: no need to look


def _fragments(file: RangeFile, position: int) -> Iterator[Span]:
    """Offset and length of each fragment's value, to the Sequence Delimitation Item or the end of the file."""
    ahead = 8
    while position + 8 <= file.size:
        tag, length = _item(file, position, ahead)
        if tag == _SEQUENCE_DELIMITER:
            return
        if tag != _ITEM or position + 8 + length > file.size:
            raise NotFound(f"the encapsulated pixel data is broken at byte {position} of the file")
        yield position + 8, length
        position += 8 + length
        ahead = _ahead(length)


def _ahead(length: int) -> int:
    """How much to read at the item behind one of this length: its head, or with it those of many short ones."""
    return BLOCK if length < _SHORT_FRAGMENT else 8


def _item(file: RangeFile, position: int, ahead: int = 8) -> tuple[int, int]:
    head = file.read_at(position, 8, ahead=ahead)
    if len(head) < 8:
        raise NotFound("the stored file ends within its pixel data")
    group, element, length = _HEAD.unpack(head)
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
        if _END_MARKER in file.read_at(offset + max(0, length - 10), min(length, 10), ahead=10):
            groups.append([])
    groups = [group for group in groups if group]
    if len(groups) != frames:
        raise NotFound(f"the frames cannot be told apart: no offset table, {len(fragments)} fragments")
    return groups

"""Reading the top-level data elements of a data set (PS3.5 section 7) up to Pixel Data, fast and without recursion.

Sequences are skipped, not parsed. Nothing is decoded here but tags, VRs and lengths; ``values`` turns raw values into
text. Real data sets mix encodings: as in pydicom, an element whose VR is not two capital letters is read as Implicit
VR whatever was declared.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from imaging_services.domain.dicom.dictionary import implicit_vr
from imaging_services.domain.dicom.sequences import (
    LONG_VRS,
    SHORT_VRS,
    UNDEFINED_LENGTH,
    Buffer,
    Content,
    OutOfData,
    is_vr,
    skip_items,
)
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, Encoding
from imaging_services.domain.dicom.uids import clean_uid
from imaging_services.domain.errors import NotDicom
from imaging_services.domain.manifest.attributes import SEQUENCE_TAGS

SPECIFIC_CHARACTER_SET = 0x00080005
SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018
STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E
_PRIVATE = 0x10000  # a private element has an odd group (PS3.5 section 7.8)
_IDENTIFIERS = (SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID)
PIXEL_REPRESENTATION = 0x00280103
PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float, Double Float and plain Pixel Data."""

MAX_VALUE_LENGTH = 4096
"""Longest value, in bytes, that is kept for events; longer ones remain in the file only."""

MOST_ELEMENTS = 16_384
"""Private elements are left out of a header that has more: the Standard has some 5,000 others, and hundreds of
thousands would keep a service busy for seconds and fill its memory."""

_LONG = {vr: vr.decode() for vr in LONG_VRS}
_SHORT = {vr: vr.decode() for vr in SHORT_VRS}


SEARCHED_SEQUENCES = frozenset(int(tag, 16) for tag in SEQUENCE_TAGS)
"""The sequences whose values are kept: searches know their items."""

RawElement = tuple[int, str, bytes | None]
"""Tag, VR and value of a top-level element; no value for sequences but those that searches know, and none for values
longer than ``MAX_VALUE_LENGTH``."""


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Stretch:
    """Elements that follow one another, and what they say, in ascending order of tags. Each is itself and no other's
    equal, so that what is made of it can be remembered."""

    encoded: bytes
    elements: tuple[RawElement, ...]


_NOTHING_KNOWN: Mapping[int, Stretch] = {}


@dataclass(slots=True)
class Header:
    """The elements before Pixel Data, in the order of the data set.

    ``pixel_data`` is the position of the Pixel Data element and ``pixel_data_end`` of the byte after it, as its length
    says; None without Pixel Data, the latter also for an undefined length. ``complete`` is False when the bytes given
    ended before Pixel Data or the end of the data set. ``truncated`` says that the whole data set was given and ends
    within an element. ``stretches`` are those of the known ones that were found, with the place of the first of their
    elements among all, and ``starts`` the positions of the others.
    """

    elements: list[RawElement] = field(default_factory=list)
    pixel_data: int | None = None
    pixel_data_end: int | None = None
    complete: bool = False
    truncated: bool = False
    little_endian: bool = True
    stretches: list[tuple[int, Stretch]] = field(default_factory=list, init=False, repr=False, compare=False)
    starts: list[int] = field(default_factory=list, init=False, repr=False, compare=False)
    _values: dict[int, bytes | None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def raw(self, tag: int) -> bytes | None:
        """The value of a top-level element, or None."""
        if not self._values:
            self._values = {tag: value for tag, _, value in reversed(self.elements)}  # the first of a tag counts
        return self._values.get(tag)

    def uid(self, tag: int) -> str:
        """The value of a UI element without padding; empty when absent."""
        return clean_uid(self.raw(tag) or b"")

    def leave_private_out(self) -> Callable[[RawElement], None]:
        """Of too many elements keep the Standard's, at most so many; returns what takes in those that follow."""
        self.elements[:] = [one for one in self.elements if not one[0] & _PRIVATE]
        self.stretches.clear()
        self.starts.clear()
        missing = set(_IDENTIFIERS) - {one[0] for one in self.elements}

        def append(one: RawElement) -> None:
            if one[0] in missing or (len(self.elements) < MOST_ELEMENTS and not one[0] & _PRIVATE):
                missing.discard(one[0])
                self.elements.append(one)

        return append


def scan(data: Buffer, encoding: Encoding, *, ended: bool, known: Mapping[int, Stretch] = _NOTHING_KNOWN) -> Header:
    """Read the header of an inflated data set from its beginning; what ``known`` has by its first tag, and is here byte
    for byte, is not read again.

    ``ended`` says that ``data`` is the whole data set. When an element then reaches beyond its end, the header is what
    came before, marked truncated, if that identifies the instance: hospital data is kept as it is. If not, ``NotDicom``
    is raised. The length of Pixel Data itself is not judged.
    """
    header = Header(little_endian=encoding.little_endian)
    try:
        _scan_elements(data, encoding, header, known)
    except OutOfData:
        if ended and not all(map(header.uid, _IDENTIFIERS)):
            raise NotDicom(f"{_place(header)} a length points beyond the end of the data set") from None
        header.complete = header.truncated = ended
        return header
    if ended and not header.elements:
        raise NotDicom("there is no data element before the pixel data")
    header.complete = ended or header.pixel_data is not None
    return header


def _place(header: Header) -> str:
    if not header.elements:
        return "in the first element"
    tag = header.elements[-1][0]
    return f"after element ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def _scan_elements(data: Buffer, encoding: Encoding, header: Header, known: Mapping[int, Stretch]) -> None:
    """Append elements up to Pixel Data or the end. One long loop, since it runs for every element of every instance."""
    order = "<" if encoding.little_endian else ">"
    head = struct.Struct(order + "HH2sH").unpack_from
    length_at = struct.Struct(order + "L").unpack_from
    always_implicit, explicit = encoding.implicit, Content.EXPLICIT
    elements = header.elements
    append, begin, too_many = elements.append, header.starts.append, False
    size = len(data)
    position = 0
    while position + 8 <= size:
        if len(elements) > MOST_ELEMENTS and not too_many:
            append, too_many, known = header.leave_private_out(), True, _NOTHING_KNOWN
        group, element, vr, length = head(data, position)
        tag = group << 16 | element
        if (
            tag in known
            and data[position : position + len(known[tag].encoded)] == known[tag].encoded
            and len(elements) + len(known[tag].elements) <= MOST_ELEMENTS
        ):
            stretch = known[tag]
            header.stretches.append((len(elements), stretch))
            elements += stretch.elements
            position += len(stretch.encoded)
            continue
        content = explicit
        start = position + 8
        if not always_implicit and vr in _SHORT:
            name = _SHORT[vr]
        elif not always_implicit and vr in _LONG:
            if position + 12 > size:
                raise OutOfData
            length = length_at(data, start)[0]
            name, start = _LONG[vr], position + 12
        elif not always_implicit and is_vr(vr):
            name = "UN"
        else:
            length = length_at(data, position + 4)[0]
            name, content = implicit_vr(tag), Content.IMPLICIT
        if group == 0x7FE0 and tag in PIXEL_DATA:
            header.pixel_data = position
            header.pixel_data_end = None if length == UNDEFINED_LENGTH else start + length
            return
        if not too_many:
            begin(position)
        if length == UNDEFINED_LENGTH:
            content = Content.EITHER if vr == b"UN" and content is explicit else content
            position = skip_items(data, start, content, little_endian=encoding.little_endian)
            searched = tag in SEARCHED_SEQUENCES and position - start <= MAX_VALUE_LENGTH
            append((tag, "SQ" if name == "UN" else name, bytes(data[start:position]) if searched else None))
            continue
        position = start + length
        if position > size:
            raise OutOfData
        if group != 0x0002:  # file meta elements have no place in a data set; events leave them out
            keep = length <= MAX_VALUE_LENGTH and (name != "SQ" or tag in SEARCHED_SEQUENCES)
            append((tag, name, bytes(data[start:position]) if keep else None))
    if any(data[position:size]):  # fewer than eight bytes; zeros are padding
        raise OutOfData


def guess_encoding(head: bytes | bytearray) -> Encoding:
    """The encoding that the first element looks like; groups are small numbers, which tells the byte order."""
    if len(head) < 8 or bytes(head[4:6]) not in _LONG.keys() | _SHORT.keys():
        return IMPLICIT_LITTLE
    little, big = int.from_bytes(head[:2], "little"), int.from_bytes(head[:2], "big")
    return EXPLICIT_LITTLE if little <= big else EXPLICIT_BIG

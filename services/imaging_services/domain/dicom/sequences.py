"""Skipping sequences of undefined length (PS3.5 section 7.5) without recursion and without decoding them."""

import struct
from enum import IntEnum

from imaging_services.domain.errors import NotDicom

Buffer = bytes | bytearray | memoryview

MAX_DEPTH = 256
"""Deepest nesting of sequences that is believed."""
MAX_NESTED_ELEMENTS = 50_000_000
"""Elements and items that are walked in one sequence before the data set is given up as hostile."""

UNDEFINED_LENGTH = 0xFFFFFFFF
LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""VRs whose length field has 32 bits (PS3.5 section 7.1.2)."""
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())

_ITEM, _SEQUENCE_END = 0xE000, 0xE0DD
_ITEM_LITTLE_ENDIAN = b"\xfe\xff\x00\xe0"


class OutOfData(Exception):
    """An element goes on beyond the bytes at hand."""


class Content(IntEnum):
    """How the elements within items are encoded."""

    EXPLICIT = 0
    IMPLICIT = 1
    EITHER = 2
    """Within UN: Implicit VR by the Standard (PS3.5 section 6.2.2 note 2), Explicit VR from some senders."""


def is_vr(vr: bytes) -> bool:
    """True for two capital letters: a VR, maybe one that is not known yet."""
    return b"AA" <= vr <= b"ZZ" and b"A" <= vr[1:] <= b"Z"


def skip_items(data: Buffer, position: int, content: Content, *, little_endian: bool) -> int:
    """The position after the Sequence Delimitation Item that belongs to the items at ``position``.

    Raises ``OutOfData`` when it is not among the bytes, ``NotDicom`` when the nesting is not to be believed.
    """
    if content is Content.EITHER and data[position : position + 4] == _ITEM_LITTLE_ENDIAN:
        little_endian = True  # the content of UN is little endian even in a big endian data set
    order = "<" if little_endian else ">"
    head = struct.Struct(order + "HH2sH").unpack_from
    length_at = struct.Struct(order + "L").unpack_from
    size = len(data)
    open_sequences = [content]
    for _ in range(MAX_NESTED_ELEMENTS):
        if position + 12 > size and position + 8 != size:
            raise OutOfData
        group, element, vr, length = head(data, position)
        if group == 0xFFFE:
            length = length_at(data, position + 4)[0]
            position += 8
            if element == _SEQUENCE_END:
                open_sequences.pop()
                if not open_sequences:
                    return position
            elif element == _ITEM and length != UNDEFINED_LENGTH:
                position += length
            continue
        content = open_sequences[-1]
        if content is not Content.IMPLICIT and vr in LONG_VRS:
            if position + 12 > size:
                raise OutOfData
            length = length_at(data, position + 8)[0]
            position += 12
        elif content is not Content.IMPLICIT and (vr in SHORT_VRS or (content is Content.EXPLICIT and is_vr(vr))):
            position += 8
        else:
            length = length_at(data, position + 4)[0]
            position += 8
            content = Content.IMPLICIT
        if length == UNDEFINED_LENGTH:
            open_sequences.append(Content.EITHER if vr == b"UN" and content is not Content.IMPLICIT else content)
            if len(open_sequences) > MAX_DEPTH:
                raise NotDicom(f"sequences nested deeper than {MAX_DEPTH}")
        else:
            position += length
    raise NotDicom(f"a sequence of more than {MAX_NESTED_ELEMENTS} elements")

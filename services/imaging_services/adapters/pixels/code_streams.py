"""What the head of a compressed frame says: size, precision and colour transform, before a codec is let at it.

A header in the data set and a code stream may disagree; the code stream's size decides how much memory a codec takes.
"""

import struct
from dataclasses import dataclass

from imaging_services.domain.errors import PermanentError

_SIZ = b"\xff\x4f\xff\x51"
_ADOBE = b"Adobe"
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # not DHT, JPG, DAC; F7 is JPEG-LS
_START_OF_SCAN = 0xDA
_MARKERS = 1000


@dataclass(frozen=True, slots=True)
class CodeStream:
    """``precision``: bits of a sample. ``transformed``: whether colours were transformed, None if it does not say."""

    rows: int
    columns: int
    components: int
    precision: int
    transformed: bool | None = None


def jpeg_code_stream(frame: bytes) -> CodeStream:
    """The frame header of JPEG or JPEG-LS. Raises ``PermanentError`` when there is none."""
    transformed: bool | None = None
    position = 2
    for _ in range(_MARKERS):
        if position + 4 > len(frame) or frame[position] != 0xFF:
            break
        marker = frame[position + 1]
        if marker == 0xFF:  # fill
            position += 1
            continue
        if marker == _START_OF_SCAN:
            break
        (length,) = struct.unpack_from(">H", frame, position + 2)
        segment = frame[position + 4 : position + 2 + length]
        if marker in _START_OF_FRAME and len(segment) >= 6:
            precision, rows, columns, components = struct.unpack_from(">BHHB", segment)
            return CodeStream(rows, columns, components, precision, transformed)
        transformed = _colour_marker(marker, segment, transformed)
        position += 2 + length
    raise PermanentError("the compressed frame is no JPEG code stream")


def _colour_marker(marker: int, segment: bytes, known: bool | None) -> bool | None:
    """An Adobe marker says it, and is believed before a JFIF marker, which means YCbCr."""
    if marker == 0xEE and segment.startswith(_ADOBE) and len(segment) >= 12:
        return segment[11] != 0
    if marker == 0xE0 and segment.startswith(b"JFIF") and known is None:
        return True
    return known


def jpeg_2000_code_stream(frame: bytes) -> CodeStream:
    """The SIZ marker of JPEG 2000, also within a JP2 file. Raises ``PermanentError`` when there is none."""
    start = frame.find(_SIZ, 0, 4096)
    if start < 0 or len(frame) < start + 45:
        raise PermanentError("the compressed frame is no JPEG 2000 code stream")
    right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
    components, size = struct.unpack_from(">HB", frame, start + 40)
    return CodeStream(bottom - top, right - left, components, (size & 0x7F) + 1)

"""Where each frame of a stored instance lies, for native and encapsulated Pixel Data (PS3.5 section 8, annex A.4)."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom import FileDataset

from imaging_services.domain.dicom.fragments import Encapsulation, read_encapsulation
from imaging_services.domain.dicom.header import load_deferred, read_header
from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.dicom.transfer_syntaxes import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    GE_PRIVATE_IMPLICIT_VR_BIG_ENDIAN_PIXELS,
)
from imaging_services.domain.errors import NoPixelData, NotFound

PIXEL_DATA_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float Pixel Data, Double Float Pixel Data, Pixel Data."""

PIXEL_TAGS = (
    0x00280002,  # Samples per Pixel
    0x00280004,  # Photometric Interpretation
    0x00280006,  # Planar Configuration
    0x00280008,  # Number of Frames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280100,  # Bits Allocated
    0x00280101,  # Bits Stored
    0x00280102,  # High Bit
    0x00280103,  # Pixel Representation
    0x7FE00001,  # Extended Offset Table
    0x7FE00002,  # Extended Offset Table Lengths
)
"""What a header has to be asked for to find and to describe frames."""

_PIXEL_VRS = (b"OB", b"OW", b"UN", b"OF", b"OD")
_UNDEFINED = 0xFFFFFFFF
_BIG_ENDIAN_PIXELS = frozenset({EXPLICIT_VR_BIG_ENDIAN, GE_PRIVATE_IMPLICIT_VR_BIG_ENDIAN_PIXELS})

Span = tuple[int, int]
"""Offset in the file and length, bytes."""


@dataclass(frozen=True, slots=True)
class PixelElement:
    """A pixel data element: ``offset`` of its value in the file, ``length`` as encoded."""

    tag: int
    vr: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class FramePlace:
    """The spans that make a frame when joined. ``shift``: bits to drop at the start, ``bits``: bits wanted, when the
    frame does not begin and end with a byte (Bits Allocated 1) or with a swapped word; else 0."""

    spans: Sequence[Span]
    shift: int = 0
    bits: int = 0

    @property
    def length(self) -> int:
        """Length of the frame in bytes."""
        return (self.bits + 7) // 8 if self.bits else sum(length for _, length in self.spans)


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """Where the frames lie. ``swap`` is the word size to swap, for Explicit VR Big Endian; 1 is none. ``unclear``
    says why the frames of native pixel data cannot be told apart; the whole value can be had all the same."""

    transfer_syntax_uid: str
    tag: int
    frames: int
    value: Span
    frame_bits: int
    swap: int
    encapsulation: Encapsulation | None
    unclear: str | None = None

    def place(self, number: int) -> FramePlace:
        """Frame ``number``, from 1. Raises ``NotFound`` beyond the last, or when frames cannot be told apart."""
        if self.unclear is not None:
            raise NotFound(f"the frames cannot be told apart: {self.unclear}")
        if number > self.frames:
            raise NotFound(f"there is no frame {number}: the instance has {self.frames}")
        if self.encapsulation is not None:
            spans = self.encapsulation.frame(number)
            if not spans:
                raise NotFound(f"there is no frame {number}: the pixel data has no fragment of it")
            return FramePlace(spans)
        first_bit = (number - 1) * self.frame_bits
        start, end = first_bit // 8, (first_bit + self.frame_bits + 7) // 8
        if end > self.value[1]:
            raise NotFound(f"there is no frame {number}: the pixel data is shorter than the header says")
        # Words are swapped whole, so a frame that begins or ends within one is cut out afterwards.
        low, high = start - start % self.swap, min(end + -end % self.swap, self.value[1])
        ragged = self.frame_bits % 8 != 0 or (low, high) != (start, end)
        span = (self.value[0] + low, high - low)
        return FramePlace([span], first_bit - low * 8, self.frame_bits if ragged else 0)


def read_layout(file: RangeFile) -> PixelLayout:
    """Find the frames. Raises ``NoPixelData`` without any, ``PermanentError`` when the file is broken."""
    return layout_of(file, read_header(file, PIXEL_TAGS))


def layout_of(file: RangeFile, header: FileDataset) -> PixelLayout:
    """The same, behind a header that ``read_header`` has just read."""
    transfer_syntax = str(header.file_meta.get("TransferSyntaxUID", EXPLICIT_VR_LITTLE_ENDIAN))
    pixels = pixel_element(file, header)
    if pixels is None:
        raise NoPixelData("the instance has no pixel data")
    if pixels.length == _UNDEFINED:
        found = read_encapsulation(file, pixels.offset, _number_of_frames(header), _extended_table(header, file))
        return PixelLayout(transfer_syntax, pixels.tag, found.frames, (pixels.offset, 0), 0, 1, found)
    value = (pixels.offset, min(pixels.length, file.size - pixels.offset))
    swap = _swap(header, pixels.vr) if transfer_syntax in _BIG_ENDIAN_PIXELS else 1
    try:
        frames, bits, unclear = _number_of_frames(header), _frame_bits(header), None
    except NotFound as error:
        frames, bits, unclear = 0, 0, str(error)
    return PixelLayout(transfer_syntax, pixels.tag, frames, value, bits, swap, None, unclear)


def align_bits(block: bytes, shift: int, bits: int) -> bytes:
    """Drop ``shift`` bits and keep ``bits``: bit 0 of a byte is the first pixel (PS3.5 section 8.1.1)."""
    number = int.from_bytes(block, "little") >> shift
    return (number & ((1 << bits) - 1)).to_bytes((bits + 7) // 8, "little")


def pixel_element(file: RangeFile, header: FileDataset) -> PixelElement | None:
    """The pixel data element at which ``read_header`` left the file; None without pixel data."""
    start = file.tell()
    order = "<" if header.original_encoding[1] else ">"
    head = file.read_at(start, min(12, file.size - start))
    if len(head) < 12:
        return None
    group, element, length = struct.unpack_from(order + "HHI", head)
    tag = group << 16 | element
    if tag not in PIXEL_DATA_TAGS:
        return None
    if head[4:6] not in _PIXEL_VRS:  # Implicit VR, also where the transfer syntax says otherwise
        return PixelElement(tag, "OW", start + 8, length)
    return PixelElement(tag, head[4:6].decode(), start + 12, struct.unpack_from(order + "I", head, 8)[0])


def _number_of_frames(header: FileDataset) -> int:
    try:
        return max(1, int(header.get("NumberOfFrames") or 1))
    except (TypeError, ValueError):
        raise NotFound("Number of Frames is not a number") from None


def _frame_bits(header: FileDataset) -> int:
    try:
        pixels = int(header.Rows) * int(header.Columns)
        samples = int(header.get("SamplesPerPixel") or 1)
        allocated = int(header.BitsAllocated)
    except (AttributeError, TypeError, ValueError):
        raise NotFound("Rows, Columns or Bits Allocated is missing") from None
    bits = pixels * samples * allocated
    if header.get("PhotometricInterpretation") == "YBR_FULL_422":
        bits = bits // 3 * 2  # two pixels share their chrominance, PS3.3 section C.7.6.3.1.2
    return bits


def _swap(header: FileDataset, vr: str) -> int:
    words = int(header.get("BitsAllocated") or 8) // 8
    return max(words, 2 if vr == "OW" else 1)


def _extended_table(header: FileDataset, file: RangeFile) -> tuple[Sequence[int], Sequence[int]] | None:
    """Extended Offset Table and Lengths (PS3.3 section C.7.6.3.1.8), or None."""
    columns = []
    for tag in (0x7FE00001, 0x7FE00002):
        if tag not in header:
            return None
        element = header.get_item(tag, keep_deferred=True)
        if element is None:
            return None
        if element.value is None:
            element = load_deferred(header, element, file)  # type: ignore[arg-type]
        value = bytes(element.value or b"")
        columns.append(struct.unpack_from(f"<{len(value) // 8}Q", value))
    offsets, lengths = columns
    return (offsets, lengths) if offsets and len(offsets) == len(lengths) else None

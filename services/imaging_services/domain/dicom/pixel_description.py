"""What a header says of its pixels (PS3.3 section C.7.6.3): all that is needed to decode a frame."""

from dataclasses import dataclass
from typing import Any

from pydicom import Dataset

from imaging_services.domain.errors import NotFound

PIXEL_DATA = 0x7FE00010
FLOAT_PIXEL_DATA = 0x7FE00008
DOUBLE_FLOAT_PIXEL_DATA = 0x7FE00009


@dataclass(frozen=True, slots=True)
class PixelDescription:
    """The Image Pixel module. ``tag`` is that of the element with the pixels, ``transfer_syntax_uid`` how a frame is
    encoded as ``InstanceFrames.encoded`` returns it: native frames are always little endian."""

    transfer_syntax_uid: str
    tag: int
    frames: int
    rows: int
    columns: int
    samples_per_pixel: int
    photometric_interpretation: str
    planar_configuration: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    pixel_representation: int

    @property
    def signed(self) -> bool:
        """True for two's complement values."""
        return self.pixel_representation == 1

    @property
    def floating(self) -> bool:
        """True for Float and Double Float Pixel Data."""
        return self.tag != PIXEL_DATA

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a decoded frame: rows, columns, and samples when there are several."""
        plane = (self.rows, self.columns)
        return plane if self.samples_per_pixel == 1 else (*plane, self.samples_per_pixel)

    @property
    def decoded_bytes(self) -> int:
        """Length of a decoded frame."""
        return self.rows * self.columns * self.samples_per_pixel * max(1, self.bits_allocated // 8)


def describe(header: Dataset, *, transfer_syntax_uid: str, tag: int, frames: int) -> PixelDescription:
    """Read the Image Pixel module. Raises ``NotFound`` without Rows, Columns or Bits Allocated."""
    try:
        rows, columns = int(header.Rows), int(header.Columns)
        if min(rows, columns) < 1:
            raise ValueError
        allocated = {FLOAT_PIXEL_DATA: 32, DOUBLE_FLOAT_PIXEL_DATA: 64}.get(tag) or int(header.BitsAllocated)
        stored = _number(header, "BitsStored", allocated)
        return PixelDescription(
            transfer_syntax_uid,
            tag,
            frames,
            rows,
            columns,
            _number(header, "SamplesPerPixel", 1),
            str(header.get("PhotometricInterpretation") or "MONOCHROME2").strip(),
            _number(header, "PlanarConfiguration", 0),
            allocated,
            stored if 0 < stored <= allocated else allocated,
            _number(header, "HighBit", stored - 1),
            _number(header, "PixelRepresentation", 0),
        )
    except (AttributeError, TypeError, ValueError):
        raise NotFound("Rows, Columns or Bits Allocated is missing, 0, or no number") from None


def _number(header: Dataset, keyword: str, default: int) -> int:
    value: Any = header.get(keyword)
    return default if value is None or value == "" else int(value)

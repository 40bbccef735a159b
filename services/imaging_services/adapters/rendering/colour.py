"""Colour images as 8-bit RGB: palettes, luminance and chrominance (PS3.3 sections C.7.6.3.1.2, C.7.9, C.7.6.23)."""

from typing import Any

import numpy as np
from PIL import Image
from pydicom import Dataset

from imaging_services.adapters.rendering.frame_attributes import text
from imaging_services.adapters.rendering.lookup_table import LookupTable, read_palette
from imaging_services.domain.dicom.pixel_description import PixelDescription
from imaging_services.domain.errors import CannotTranscode

Array = np.ndarray[Any, Any]

_COLOURS = ("Red", "Green", "Blue")
# Luminance from 16 to 235 and chrominance from 16 to 240 (PS3.3 section C.7.6.3.1.2, YBR_PARTIAL_420).
_PARTIAL = np.array([[1.1644, 0.0, 1.5960], [1.1644, -0.3917, -0.8130], [1.1644, 2.0173, 0.0]], np.float32)


def from_palette(stored: Array, header: Dataset, pixels: PixelDescription) -> Array:
    """A PALETTE COLOR frame as RGB. Raises ``PermanentError`` without a usable palette."""
    tables = _palettes(header, pixels)
    return np.stack([table.as_8_bit()[_places(stored, table)] for table in tables], axis=-1)


def with_supplement(levels: Array, stored: Array, header: Dataset, pixels: PixelDescription) -> Array | None:
    """RGB of a gray frame whose values from the palette's first on have a colour; None when the image has none."""
    coloured = text(header, "PixelPresentation") in ("COLOR", "MIXED", "TRUE_COLOR")
    if not coloured or "RedPaletteColorLookupTableDescriptor" not in header:
        return None
    tables = _palettes(header, pixels)
    beyond = stored >= tables[0].first
    gray: Array = np.stack([levels] * 3, axis=-1)
    gray[beyond] = np.stack([table.as_8_bit()[_places(stored[beyond], table)] for table in tables], axis=-1)
    return gray


def as_rgb(array: Array, photometric_interpretation: str, pixels: PixelDescription) -> Array:
    """Interleaved samples as 8-bit RGB. Raises ``CannotTranscode`` for a colour space that is not known."""
    if array.shape[2] != len(_COLOURS):
        raise CannotTranscode(f"images of {array.shape[2]} samples per pixel are not rendered")
    samples = _as_8_bit(array, pixels)
    if photometric_interpretation == "RGB":
        return samples
    if photometric_interpretation in ("YBR_FULL", "YBR_FULL_422"):
        rows, columns = samples.shape[:2]
        return np.asarray(Image.frombytes("YCbCr", (columns, rows), samples.tobytes()).convert("RGB"))
    if photometric_interpretation.startswith("YBR_PARTIAL"):
        shifted = samples.astype(np.float32) - np.array([16, 128, 128], np.float32)
        levels: Array = np.clip(np.rint(shifted @ _PARTIAL.T), 0, 255)
        return levels.astype(np.uint8)
    raise CannotTranscode(f"images of Photometric Interpretation {photometric_interpretation} are not rendered")


def _palettes(header: Dataset, pixels: PixelDescription) -> list[LookupTable]:
    little = header.original_encoding[1] is not False
    return [read_palette(header, colour, little_endian=little, signed=pixels.signed) for colour in _COLOURS]


def _places(stored: Array, table: LookupTable) -> Array:
    return np.clip(stored.astype(np.int32) - table.first, 0, len(table.entries) - 1)


def _as_8_bit(array: Array, pixels: PixelDescription) -> Array:
    if array.dtype == np.uint8 and pixels.bits_stored == 8:
        return array
    top = float((1 << pixels.bits_stored) - 1)
    return np.rint(np.clip(array, 0, top) * (255.0 / top)).astype(np.uint8)

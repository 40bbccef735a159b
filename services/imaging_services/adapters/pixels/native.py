"""Uncompressed frames and arrays (PS3.5 section 8.1, PS3.3 section C.7.6.3.1.2)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging_services.domain.dicom.pixel_description import PixelDescription
from imaging_services.domain.errors import CannotTranscode, PermanentError

Array = NDArray[Any]

_WORDS = {8: "u1", 16: "<u2", 32: "<u4", 64: "<u8"}
_FLOATS = {32: "<f4", 64: "<f8"}


def word_type(pixels: PixelDescription) -> np.dtype[Any]:
    """The type of an undecoded word. Raises ``CannotTranscode`` for sizes that are no whole bytes."""
    words = _FLOATS if pixels.floating else _WORDS
    if pixels.bits_allocated not in words:
        raise CannotTranscode(f"pixels of {pixels.bits_allocated} bits are not decoded")
    return np.dtype(words[pixels.bits_allocated])


def decode_native(frame: bytes, pixels: PixelDescription) -> Array:
    """Words as an array of rows, columns and samples; YBR_FULL_422 becomes YBR_FULL. Raises ``PermanentError``."""
    if pixels.bits_allocated == 1:
        return _single_bits(frame, pixels)
    if pixels.photometric_interpretation == "YBR_FULL_422":
        return _full_chrominance(_words(frame, pixels, pixels.rows * pixels.columns * 2), pixels)
    words = _words(frame, pixels, pixels.rows * pixels.columns * pixels.samples_per_pixel)
    if pixels.samples_per_pixel > 1 and pixels.planar_configuration == 1:
        planes = words.reshape(pixels.samples_per_pixel, pixels.rows, pixels.columns)
        return np.ascontiguousarray(planes.transpose(1, 2, 0))
    return words.reshape(pixels.shape)


def encode_native(words: Array) -> bytes:
    """An array of words, pixel by pixel, little endian."""
    return np.ascontiguousarray(words, dtype=words.dtype.newbyteorder("<")).tobytes()


def _words(frame: bytes, pixels: PixelDescription, count: int) -> Array:
    dtype = word_type(pixels)
    if len(frame) < count * dtype.itemsize:
        raise PermanentError(f"the frame has {len(frame)} bytes, its header asks for {count * dtype.itemsize}")
    return np.frombuffer(frame, dtype, count)


def _single_bits(frame: bytes, pixels: PixelDescription) -> Array:
    count = pixels.rows * pixels.columns * pixels.samples_per_pixel
    if len(frame) * 8 < count:
        raise PermanentError(f"the frame has {len(frame) * 8} bits, its header asks for {count}")
    bits = np.unpackbits(np.frombuffer(frame, np.uint8), count=count, bitorder="little")
    return bits.reshape(pixels.shape)


def _full_chrominance(words: Array, pixels: PixelDescription) -> Array:
    """Y1 Y2 Cb Cr of two neighbours each (PS3.3 section C.7.6.3.1.2) become Y Cb Cr of each."""
    if len(words) % 4:
        raise PermanentError("the frame has an odd number of pixels, of which two share their chrominance")
    quads = words.reshape(-1, 4)
    full = np.empty((quads.shape[0], 2, 3), words.dtype)
    full[:, :, 0] = quads[:, :2]
    full[:, :, 1:] = quads[:, np.newaxis, 2:]
    return full.reshape(pixels.rows, pixels.columns, 3)

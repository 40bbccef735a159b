"""RLE Lossless (PS3.5 annex G): byte planes, most significant first, each packed row by row."""

import struct
from itertools import pairwise

import imagecodecs
import numpy as np

from imaging_services.adapters.pixels.native import Array, word_type
from imaging_services.domain.dicom.pixel_description import PixelDescription
from imaging_services.domain.errors import PermanentError

_HEADER = struct.Struct("<16I")
_MOST_SEGMENTS = 15
_SLACK = 4096  # what padding behind a segment may unpack to


def decode_rle(frame: bytes, pixels: PixelDescription) -> Array:
    """Words as an array of rows, columns and samples. Raises ``PermanentError``."""
    dtype = word_type(pixels)
    samples, size, plane = pixels.samples_per_pixel, dtype.itemsize, pixels.rows * pixels.columns
    words = np.empty((plane, samples, size), np.uint8)
    for index, segment in enumerate(_segments(frame, samples * size)):
        content = np.empty(plane + _SLACK, np.uint8)
        unpacked = imagecodecs.packbits_decode(segment, out=content.data)
        if len(unpacked) < plane:
            raise PermanentError(f"segment {index + 1} of the RLE frame ends too soon")
        words[:, index // size, size - 1 - index % size] = content[:plane]
    return words.reshape(-1).view(dtype).reshape(pixels.shape)


def _segments(frame: bytes, wanted: int) -> list[bytes]:
    if len(frame) < _HEADER.size:
        raise PermanentError("the RLE frame is shorter than its header")
    count, *offsets = _HEADER.unpack_from(frame)
    if count != wanted or count > _MOST_SEGMENTS:
        raise PermanentError(f"the RLE frame has {count} segments, its header asks for {wanted}")
    starts = [*offsets[:count], len(frame)]
    if starts[0] < _HEADER.size or starts != sorted(starts):
        raise PermanentError("the segments of the RLE frame are out of order")
    return [frame[start:end] for start, end in pairwise(starts)]


def encode_rle(words: Array) -> bytes:
    """Pack an array of words. A run never crosses a row (PS3.5 section G.3.1)."""
    rows, columns = words.shape[:2]
    size = words.dtype.itemsize
    planes = np.ascontiguousarray(words, words.dtype.newbyteorder("<")).view(np.uint8).reshape(rows, columns, -1, size)
    segments = []
    for sample in range(planes.shape[2]):
        for byte in reversed(range(size)):
            plane = np.ascontiguousarray(planes[:, :, sample, byte])
            packed = bytes(imagecodecs.packbits_encode(plane, axis=-1))
            segments.append(packed + b"\x00" * (len(packed) % 2))
    starts = np.cumsum([_HEADER.size, *map(len, segments)])[: len(segments)].tolist()
    header = [len(segments), *starts]
    return _HEADER.pack(*header, *[0] * (16 - len(header))) + b"".join(segments)

"""One encoded frame to an array. Blocking: belongs on ``PixelWorkers``."""

from dataclasses import dataclass

import imagecodecs

from imaging_services.adapters.pixels.code_streams import CodeStream, jpeg_2000_code_stream, jpeg_code_stream
from imaging_services.adapters.pixels.native import Array, decode_native, word_type
from imaging_services.adapters.pixels.rle import decode_rle
from imaging_services.adapters.pixels.syntaxes import (
    JPEG_2000_FAMILY,
    JPEG_DCT,
    JPEG_LS,
    RLE,
    can_decode,
    decoded_photometric,
)
from imaging_services.domain.dicom.pixel_description import PixelDescription
from imaging_services.domain.dicom.transfer_syntaxes import is_encapsulated, name_of
from imaging_services.domain.errors import CannotTranscode, PermanentError

_END_OF_IMAGE = b"\xff\xd9"
_TAIL = 16  # where it is looked for: padding may follow


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """Stored values: ``array`` is (rows, columns) or (rows, columns, samples), of 8, 16, 32 or 64 bits, signed as Pixel
    Representation says, without the bits above High Bit; of float for Float Pixel Data. The colour space is
    ``photometric_interpretation``, in which codecs' own transforms are undone."""

    array: Array
    photometric_interpretation: str


def decode_frame(encoded: bytes, pixels: PixelDescription) -> DecodedFrame:
    """Stored values of one frame. Raises ``CannotTranscode`` for what is not decoded here, ``PermanentError`` for a
    frame that is broken or is not what its header says."""
    words = decode_words(encoded, pixels)
    array = words if pixels.floating or pixels.bits_allocated == 1 else _stored_values(words, pixels)
    return DecodedFrame(array, decoded_photometric(pixels))


def decode_words(encoded: bytes, pixels: PixelDescription) -> Array:
    """Words of Bits Allocated as native pixel data has them, with whatever is above High Bit; signed ones as two's
    complement. Raises as ``decode_frame``."""
    syntax = pixels.transfer_syntax_uid
    if not is_encapsulated(syntax):
        return decode_native(encoded, pixels)
    if not can_decode(syntax):
        raise CannotTranscode(f"{name_of(syntax)} is not decoded here")
    if pixels.floating:
        raise CannotTranscode("compressed floating point pixels are not decoded here")
    try:
        if syntax == RLE:
            return decode_rle(encoded, pixels)
        if syntax in JPEG_2000_FAMILY:
            return _decode_jpeg_2000(encoded, pixels)
        return _decode_jpeg(encoded, pixels)
    except (RuntimeError, ValueError, IndexError, MemoryError) as error:  # what imagecodecs raises
        raise PermanentError(f"the {name_of(syntax)} frame is broken: {error}") from None


def _decode_jpeg(encoded: bytes, pixels: PixelDescription) -> Array:
    stream = jpeg_code_stream(encoded)
    _require_agreement(stream, pixels)
    if pixels.transfer_syntax_uid in JPEG_LS:
        if _END_OF_IMAGE not in encoded[-_TAIL:]:  # CharLS looks for the end of such a one for half a minute
            raise PermanentError("the JPEG-LS frame ends too soon")
        decoded = imagecodecs.jpegls_decode(encoded)
    elif pixels.transfer_syntax_uid in JPEG_DCT and stream.components == 3:
        colours = "YCBCR" if _is_transformed(stream, pixels) else "RGB"
        decoded = imagecodecs.jpeg8_decode(encoded, colorspace=colours, outcolorspace="RGB")
    else:
        decoded = imagecodecs.jpeg8_decode(encoded)
    return _words(decoded, pixels, stream.precision)


def _is_transformed(stream: CodeStream, pixels: PixelDescription) -> bool:
    """Markers of the code stream say it; without them Photometric Interpretation does."""
    if stream.transformed is not None:
        return stream.transformed
    return pixels.photometric_interpretation != "RGB"


def _decode_jpeg_2000(encoded: bytes, pixels: PixelDescription) -> Array:
    stream = jpeg_2000_code_stream(encoded)
    _require_agreement(stream, pixels)
    # HTJ2K too: imagecodecs loses the errors of OpenJPH, so half a frame would come back as a whole one.
    return _words(imagecodecs.jpeg2k_decode(encoded, numthreads=1), pixels, stream.precision)


def _require_agreement(stream: CodeStream, pixels: PixelDescription) -> None:
    wanted = (pixels.rows, pixels.columns, pixels.samples_per_pixel)
    if (stream.rows, stream.columns, stream.components) != wanted:
        found = f"{stream.rows} x {stream.columns} x {stream.components}"
        raise PermanentError(f"the compressed frame is {found}, its header says {' x '.join(map(str, wanted))}")
    if stream.precision > pixels.bits_allocated:
        raise PermanentError(f"the compressed frame has {stream.precision} bits, more than Bits Allocated")


def _words(decoded: Array, pixels: PixelDescription, precision: int) -> Array:
    """Widen what a codec gave to words of Bits Allocated, as native pixel data has them.

    Code streams of JPEG and JPEG-LS do not know signs, those of JPEG 2000 may contradict Pixel Representation. So the
    lowest ``precision`` bits are taken, and their sign is extended where Pixel Representation says that there is one.
    """
    if decoded.shape != pixels.shape:
        raise PermanentError(f"the codec gave an image of {decoded.shape}, its header says {pixels.shape}")
    words = decoded.astype(word_type(pixels))
    if precision < pixels.bits_allocated:
        words = _extended(words, precision) if pixels.signed else words & words.dtype.type((1 << precision) - 1)
    return words


def _extended(words: Array, bits: int) -> Array:
    """Two's complement of ``bits`` bits as one of the whole word."""
    spare = words.dtype.itemsize * 8 - bits
    signed = (words << words.dtype.type(spare)).view(words.dtype.str.replace("u", "i"))
    extended: Array = (signed >> signed.dtype.type(spare)).view(words.dtype)
    return extended


def _stored_values(words: Array, pixels: PixelDescription) -> Array:
    stored = pixels.bits_stored
    lowest = max(0, min(pixels.high_bit, pixels.bits_allocated - 1) + 1 - stored)
    if lowest:
        words = words >> words.dtype.type(lowest)
    if pixels.signed:
        words = _extended(words, stored) if stored < pixels.bits_allocated else words
        values: Array = words.view(words.dtype.str.replace("u", "i"))
        return values
    return words & words.dtype.type((1 << stored) - 1) if stored < pixels.bits_allocated else words

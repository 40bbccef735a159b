"""Words of one frame to an encoded frame. Blocking: belongs on ``PixelWorkers``."""

import imagecodecs
import numpy as np

from imaging_services.adapters.pixels.native import Array, encode_native
from imaging_services.adapters.pixels.rle import encode_rle
from imaging_services.adapters.pixels.syntaxes import (
    HTJ2K,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    JPEG_LS_NEAR_LOSSLESS,
    RLE,
    require_encodable,
)
from imaging_services.domain.dicom.pixel_description import PixelDescription
from imaging_services.domain.dicom.transfer_syntaxes import is_encapsulated, name_of
from imaging_services.domain.errors import PermanentError

JPEG_QUALITY = 90
"""Of JPEG with loss, 1 to 100 as the IJG counts."""
NEAR = 2
"""Largest error of a pixel in near-lossless JPEG-LS."""
PEAK_SIGNAL_TO_NOISE = 55
"""Of JPEG 2000 with loss, in dB of the full range of Bits Stored."""

_JPEG_LS_SPARE = 64 * 1024  # imagecodecs' own estimate is too small for noise
_SMALLEST_RESOLUTION = 64


def encode_words(words: Array, pixels: PixelDescription, target: str) -> bytes:
    """Encode what ``decode_words`` gave for an image of this description. Every bit of a word is kept, unless the
    target loses information. Raises ``CannotTranscode`` when the target has no place for such an image."""
    require_encodable(pixels, target)
    if not is_encapsulated(target):
        return np.packbits(words, bitorder="little").tobytes() if pixels.bits_allocated == 1 else encode_native(words)
    try:
        return _compressed(words, pixels, target)
    except (RuntimeError, ValueError) as error:  # what imagecodecs raises
        raise PermanentError(f"the frame cannot be encoded as {name_of(target)}: {error}") from None


def _compressed(words: Array, pixels: PixelDescription, target: str) -> bytes:
    if target == RLE:
        return encode_rle(words)
    if target in (JPEG_LS_LOSSLESS, JPEG_LS_NEAR_LOSSLESS):
        return _jpeg_ls(words, pixels, NEAR if target == JPEG_LS_NEAR_LOSSLESS else 0)
    if target in (JPEG_LOSSLESS, JPEG_LOSSLESS_SV1):
        # Selection value 1, which the one requires and the other allows.
        precision = _precision(words, pixels)
        return bytes(imagecodecs.jpeg8_encode(words, lossless=True, predictor=1, bitspersample=precision))
    if target in (JPEG_BASELINE, JPEG_EXTENDED):
        return _dct(words, pixels)
    return _wavelets(words, pixels, target)


def _jpeg_ls(words: Array, pixels: PixelDescription, near: int) -> bytes:
    if near and pixels.bits_stored < pixels.bits_allocated:
        # The code stream has the precision of whole words: nothing else keeps an error from crossing Bits Stored.
        words = np.minimum(words, words.dtype.type((1 << pixels.bits_stored) - 1 - near))
    return bytes(imagecodecs.jpegls_encode(words, level=near, out=words.nbytes * 2 + _JPEG_LS_SPARE))


def _dct(words: Array, pixels: PixelDescription) -> bytes:
    if words.ndim == 3:
        encoded = imagecodecs.jpeg8_encode(
            words, level=JPEG_QUALITY, colorspace="RGB", outcolorspace="YCBCR", subsampling="422"
        )
    else:
        encoded = imagecodecs.jpeg8_encode(words, level=JPEG_QUALITY, bitspersample=pixels.bits_stored)
    return bytes(encoded)


def _wavelets(words: Array, pixels: PixelDescription, target: str) -> bytes:
    colours = require_encodable(pixels, target).photometric_interpretation in ("YBR_RCT", "YBR_ICT")
    samples = words.view(words.dtype.str.replace("u", "i")) if pixels.signed else words
    if target in (HTJ2K, HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL):
        # Down to a resolution of 64 pixels, in the order of resolutions, as RPCL asks for (PS3.5 section A.4.13).
        levels = ((max(words.shape[:2]) - 1) // _SMALLEST_RESOLUTION).bit_length()
        return bytes(imagecodecs.htj2k_encode(samples, reversible=True, rgb=colours, resolutions=levels, tlm=True))
    lossless = target == JPEG_2000_LOSSLESS
    return bytes(
        imagecodecs.jpeg2k_encode(
            samples,
            level=None if lossless else PEAK_SIGNAL_TO_NOISE,
            codecformat="j2k",
            reversible=lossless,
            bitspersample=_precision(words, pixels),
            mct=colours,
            numthreads=1,
        )
    )


def _precision(words: Array, pixels: PixelDescription) -> int:
    """Bits Stored; Bits Allocated when something lies above them, such as an overlay, which is kept too. Code streams
    of JPEG do not know signs, and not every decoder extends them, so signed words are kept whole there."""
    whole, stored = pixels.bits_allocated, pixels.bits_stored
    if pixels.signed or stored == whole or int(words.max(initial=0)) >> stored:
        return whole
    return stored

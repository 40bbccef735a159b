"""Which transfer syntaxes are decoded and encoded here, and what an image must be like for each (PS3.5 section 8.2)."""

from dataclasses import dataclass

from imaging_services.domain.dicom.pixel_description import PixelDescription
from imaging_services.domain.dicom.transfer_syntaxes import (
    EXPLICIT_VR_BIG_ENDIAN,
    encoding_of,
    is_encapsulated,
    name_of,
    native_transfer_syntax,
)
from imaging_services.domain.errors import CannotTranscode

RLE = "1.2.840.10008.1.2.5"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_SV1 = "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR_LOSSLESS = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
JPEG_2000 = "1.2.840.10008.1.2.4.91"
HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL = "1.2.840.10008.1.2.4.202"
HTJ2K = "1.2.840.10008.1.2.4.203"

JPEG_DCT = frozenset({JPEG_BASELINE, JPEG_EXTENDED})
JPEG_PREDICTIVE = frozenset({JPEG_LOSSLESS, JPEG_LOSSLESS_SV1})
JPEG_LS = frozenset({JPEG_LS_LOSSLESS, JPEG_LS_NEAR_LOSSLESS})
JPEG_2000_FAMILY = frozenset({JPEG_2000_LOSSLESS, JPEG_2000, HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL, HTJ2K})

COMPRESSED = frozenset({RLE}) | JPEG_DCT | JPEG_PREDICTIVE | JPEG_LS | JPEG_2000_FAMILY
"""Compressed transfer syntaxes that are decoded and encoded."""

LOSSY_METHODS = {
    JPEG_BASELINE: "ISO_10918_1",
    JPEG_EXTENDED: "ISO_10918_1",
    JPEG_LS_NEAR_LOSSLESS: "ISO_14495_1",
    JPEG_2000: "ISO_15444_1",
}
"""Targets that lose information as they are encoded here, and their Lossy Image Compression Method (PS3.3 section
C.7.6.1.1.5.1). HTJ2K (.203) allows loss, but is encoded without."""

_SAME_CODE_STREAM = frozenset(
    {
        (JPEG_BASELINE, JPEG_EXTENDED),
        (JPEG_LOSSLESS_SV1, JPEG_LOSSLESS),
        (JPEG_LS_LOSSLESS, JPEG_LS_NEAR_LOSSLESS),
        (JPEG_2000_LOSSLESS, JPEG_2000),
        (HTJ2K_LOSSLESS, HTJ2K),
        (HTJ2K_LOSSLESS_RPCL, HTJ2K),
        (HTJ2K_LOSSLESS_RPCL, HTJ2K_LOSSLESS),
    }
)


@dataclass(frozen=True, slots=True)
class Encoded:
    """What becomes of an image in a target: its Photometric Interpretation there; whether it loses information."""

    photometric_interpretation: str
    lossy: bool


def can_decode(transfer_syntax_uid: str) -> bool:
    """True when frames in this transfer syntax can be decoded."""
    return transfer_syntax_uid in COMPRESSED or not is_encapsulated(transfer_syntax_uid)


def can_encode(transfer_syntax_uid: str) -> bool:
    """True for targets; Explicit VR Big Endian is retired and only read."""
    native = native_transfer_syntax(encoding_of(transfer_syntax_uid)) == transfer_syntax_uid
    return transfer_syntax_uid in COMPRESSED or (native and transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN)


def can_transcode(source: str, target: str) -> bool:
    """True when instances stored in ``source`` can be had in ``target``. An image may be refused all the same, by
    what its header says: a bit depth or colour space that the target does not have."""
    return source == target or (can_decode(source) and can_encode(target))


def is_lossy(target: str) -> bool:
    """True when encoding into this target loses information."""
    return target in LOSSY_METHODS


def same_code_stream(source: str, target: str) -> bool:
    """True when frames of ``source`` are right in ``target`` as they are: what the one requires, the other allows."""
    return source == target or (source, target) in _SAME_CODE_STREAM


def decoded_photometric(pixels: PixelDescription) -> str:
    """Photometric Interpretation of a decoded frame: codecs undo their own colour transforms (PS3.5 section 8.2)."""
    colour = pixels.photometric_interpretation
    if pixels.transfer_syntax_uid in JPEG_DCT and pixels.samples_per_pixel == 3:
        return "RGB"
    if colour in ("YBR_RCT", "YBR_ICT"):
        return "RGB"
    return "YBR_FULL" if colour == "YBR_FULL_422" else colour


def require_encodable(pixels: PixelDescription, target: str) -> Encoded:
    """What the image becomes in ``target``. Raises ``CannotTranscode`` when the Standard, or the codec, has no place
    for it there (PS3.5 tables 8.2.1-1 to 8.2.4-1)."""
    colour = decoded_photometric(pixels)
    if not is_encapsulated(target):
        return Encoded(colour, lossy=False)
    reason = _obstacle(pixels, colour, target)
    if reason:
        raise CannotTranscode(f"{name_of(target)} has no place for {reason}")
    lossy = is_lossy(target)
    if target in JPEG_DCT and colour == "RGB":
        return Encoded("YBR_FULL_422", lossy)
    if target in JPEG_2000_FAMILY and colour == "RGB":
        return Encoded("YBR_ICT" if lossy else "YBR_RCT", lossy)
    return Encoded(colour, lossy)


def _obstacle(pixels: PixelDescription, colour: str, target: str) -> str | None:
    if pixels.floating:
        return "floating point pixels"
    if pixels.bits_allocated not in ((8, 16, 32) if target == RLE else (8, 16)):
        return f"{pixels.bits_allocated} bits allocated"
    if pixels.samples_per_pixel not in (1, 3):
        return f"{pixels.samples_per_pixel} samples per pixel"
    if is_lossy(target) and colour == "PALETTE COLOR":
        return "palette colours, which mean nothing when they are off by a little"
    if target in JPEG_DCT:
        return _obstacle_of_dct(pixels, target)
    if target == JPEG_LS_NEAR_LOSSLESS and pixels.signed:
        return "signed pixels with loss"
    return None


def _obstacle_of_dct(pixels: PixelDescription, target: str) -> str | None:
    if pixels.signed:
        return "signed pixels"
    if (pixels.bits_allocated, pixels.bits_stored) == (8, 8):
        return None
    twelve = (pixels.bits_allocated, pixels.bits_stored, pixels.samples_per_pixel) == (16, 12, 1)
    if target == JPEG_EXTENDED and twelve:
        return None
    return f"{pixels.bits_stored} bits stored"

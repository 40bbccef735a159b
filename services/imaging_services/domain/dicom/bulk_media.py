"""How a bulk data part's media type says what transfer syntax pixel data has (PS3.18 section 8.7.3)."""

from imaging_services.domain.dicom.media_types import OCTET_STREAM, MediaRange
from imaging_services.domain.dicom.transfer_syntaxes import is_encapsulated
from imaging_services.domain.dicom.uids import is_uid
from imaging_services.domain.errors import UnsupportedTransferSyntax

FIRST_LOOK = 64 * 1024
"""Bytes of a part that are looked at; the markers of a JPEG lie there."""

_DEFAULTS = {
    "image/jls": "1.2.840.10008.1.2.4.80",
    "image/jp2": "1.2.840.10008.1.2.4.90",
    "image/jpx": "1.2.840.10008.1.2.4.92",
    "image/jphc": "1.2.840.10008.1.2.4.201",
    "image/jxl": "1.2.840.10008.1.2.4.112",
    "image/dicom-rle": "1.2.840.10008.1.2.5",
    "video/mpeg": "1.2.840.10008.1.2.4.100",
    "video/mpeg2": "1.2.840.10008.1.2.4.100",
    "video/mp4": "1.2.840.10008.1.2.4.102",
    "video/h265": "1.2.840.10008.1.2.4.107",
}
"""What a media type means without its ``transfer-syntax`` parameter."""
_JPEG_FRAMES = {0xC0: "1.2.840.10008.1.2.4.50", 0xC1: "1.2.840.10008.1.2.4.51", 0xC3: "1.2.840.10008.1.2.4.57"}
_LOSSLESS_FIRST_ORDER = "1.2.840.10008.1.2.4.70"
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"


def pixel_transfer_syntax(media_type: MediaRange, head: bytes) -> str | None:
    """The transfer syntax of compressed pixel data that begins with ``head``, None for native pixel data.

    Raises ``UnsupportedTransferSyntax`` for a media type that pixel data cannot be stored in.
    """
    named = media_type.transfer_syntax
    if named is not None and named != "*":
        if not is_uid(named):
            raise UnsupportedTransferSyntax(f"transfer-syntax {named[:80]!r} is not a UID")
        return named if is_encapsulated(named) else None
    if media_type.type == OCTET_STREAM:
        return None
    if media_type.type == "image/jpeg":
        return _of_jpeg(head)
    if media_type.type == "image/jls" and _near(head):
        return "1.2.840.10008.1.2.4.81"
    if media_type.type not in _DEFAULTS:
        raise UnsupportedTransferSyntax(f"pixel data is not stored as {media_type.type[:80]}")
    return _DEFAULTS[media_type.type]


def codestream_offset(head: bytes) -> int:
    """Where a JPEG 2000 codestream begins: a data set has no JP2 file header around it (PS3.5 section A.4.4)."""
    if not head.startswith(_JP2_SIGNATURE):
        return 0
    position = 0
    while position + 8 <= len(head):
        length, kind = int.from_bytes(head[position : position + 4], "big"), head[position + 4 : position + 8]
        extended = length == 1
        if kind == b"jp2c":
            return position + (16 if extended else 8)
        if extended:
            length = int.from_bytes(head[position + 8 : position + 16], "big")
        if length < 8:
            break
        position += length
    raise UnsupportedTransferSyntax("a JP2 file without a codestream in its first 64 KiB")


def _of_jpeg(head: bytes) -> str:
    """By the frame header's process, which the media type does not tell (ISO/IEC 10918-1 table B.1)."""
    for marker, content in _segments(head):
        if marker in _JPEG_FRAMES and marker != 0xC3:
            return _JPEG_FRAMES[marker]
        if marker == 0xDA:
            # Lossless: the predictor says which of the two it is (PS3.5 section 8.2.1).
            return _LOSSLESS_FIRST_ORDER if _first_parameter(head, content) == 1 else _JPEG_FRAMES[0xC3]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC3, 0xC4, 0xC8, 0xCC):
            raise UnsupportedTransferSyntax(f"JPEG of process SOF{marker - 0xC0} is no transfer syntax")
    raise UnsupportedTransferSyntax("image/jpeg without a JPEG frame header in its first 64 KiB")


def _near(head: bytes) -> bool:
    """True for near-lossless JPEG-LS: NEAR in the scan header is not zero (ISO/IEC 14495-1 section C.2.3)."""
    return any(marker == 0xDA and _first_parameter(head, content) for marker, content in _segments(head))


def _first_parameter(head: bytes, scan: int) -> int:
    """What follows the components of a scan header: Ss of JPEG, NEAR of JPEG-LS; 0 when it is not there."""
    components = head[scan] if scan < len(head) else 0
    place = scan + 1 + 2 * components
    return head[place] if place < len(head) else 0


def _segments(head: bytes) -> list[tuple[int, int]]:
    """Markers and where their content begins behind its length, up to the start of the scan."""
    found, position = [], 2
    if not head.startswith(b"\xff\xd8"):
        return []
    while position + 4 <= len(head) and head[position] == 0xFF:
        marker = head[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        found.append((marker, position + 4))
        if marker == 0xDA:
            break
        position += 2 + int.from_bytes(head[position + 2 : position + 4], "big")
    return found

"""The frames of uncompressed images with an ordinary header, found by the header scan alone. It takes a tenth of the
time of pydicom, so little that no thread is worth it; whatever is unusual is left to pydicom."""

from imaging_services.domain.dicom.elements import Header, scan
from imaging_services.domain.dicom.part10 import read_file_head
from imaging_services.domain.dicom.pixel_description import PIXEL_DATA, PixelDescription
from imaging_services.domain.dicom.pixel_layout import PixelLayout
from imaging_services.domain.dicom.transfer_syntaxes import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Encoding,
    encoding_of,
)
from imaging_services.domain.errors import NotDicom

_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
_UNDEFINED = 0xFFFFFFFF
_NUMBERS = {
    0x00280002: "samples_per_pixel",
    0x00280006: "planar_configuration",
    0x00280010: "rows",
    0x00280011: "columns",
    0x00280100: "bits_allocated",
    0x00280101: "bits_stored",
    0x00280102: "high_bit",
    0x00280103: "pixel_representation",
}
"""Attributes of the Image Pixel module that are one US (PS3.3 section C.7.6.3)."""
_NUMBER_OF_FRAMES, _PHOTOMETRIC_INTERPRETATION = 0x00280008, 0x00280004
_PHOTOMETRIC_INTERPRETATIONS = {b"MONOCHROME1": "MONOCHROME1", b"MONOCHROME2": "MONOCHROME2", b"RGB": "RGB"}


def plain_frames(head: bytes, size: int) -> tuple[PixelLayout, PixelDescription] | None:
    """Where the frames lie and what they are, as ``read_frames`` says it; None when only that can tell.

    ``head``: the file's beginning, up to behind the length of its pixel data; ``size``: of the file, bytes.
    """
    try:
        file_head = read_file_head(head, ended=False)
        if file_head is None or file_head.transfer_syntax not in _SYNTAXES:
            return None
        encoding, data_set = encoding_of(file_head.transfer_syntax), head[file_head.data_set :]
        header = scan(data_set, encoding, ended=False)
    except NotDicom:
        return None
    if header.pixel_data is None:
        return None
    found = _value(data_set, header.pixel_data, encoding)
    pixels = _described(header)
    if found is None or pixels is None:
        return None
    start, length = file_head.data_set + found[0], found[1]
    bits = pixels.rows * pixels.columns * pixels.samples_per_pixel * pixels.bits_allocated
    value = (start, min(length, size - start))
    return PixelLayout(file_head.transfer_syntax, PIXEL_DATA, pixels.frames, value, bits, 1, None), pixels


def _value(data_set: bytes, position: int, encoding: Encoding) -> tuple[int, int] | None:
    """Position and length of the value of the Pixel Data element at ``position``."""
    element = data_set[position : position + 12]
    if len(element) < 12 or element[:4] != b"\xe0\x7f\x10\x00":
        return None
    if (element[4:6] in (b"OB", b"OW")) == encoding.implicit:
        return None
    at = 4 if encoding.implicit else 8
    length = int.from_bytes(element[at : at + 4], "little")
    return None if length == _UNDEFINED else (position + at + 4, length)


def _described(header: Header) -> PixelDescription | None:
    """The Image Pixel module, where each attribute is there once and has an ordinary value."""
    numbers: dict[str, int] = {}
    frames, photometric = 1, ""
    for tag, vr, value in header.elements:
        if tag >> 16 != 0x0028:
            continue
        if tag in _NUMBERS:
            if vr != "US" or value is None or len(value) != 2 or _NUMBERS[tag] in numbers:
                return None
            numbers[_NUMBERS[tag]] = int.from_bytes(value, "little")
        elif tag == _NUMBER_OF_FRAMES:
            digits = (value or b"").strip(b" ")
            if vr != "IS" or not digits.isdigit() or len(digits) > 9:
                return None
            frames = max(1, int(digits))
        elif tag == _PHOTOMETRIC_INTERPRETATION:
            name = (value or b"").strip(b" ") if vr == "CS" else b""
            photometric = _PHOTOMETRIC_INTERPRETATIONS.get(name, "")
    numbers = {"planar_configuration": 0, **numbers}
    if len(numbers) < len(_NUMBERS) or not photometric or not _ordinary(numbers):
        return None
    return PixelDescription(
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        tag=PIXEL_DATA,
        frames=frames,
        photometric_interpretation=photometric,
        **numbers,
    )


def _ordinary(numbers: dict[str, int]) -> bool:
    sizes = (numbers["rows"], numbers["columns"], numbers["samples_per_pixel"])
    return min(sizes) > 0 and 0 < numbers["bits_stored"] <= numbers["bits_allocated"]

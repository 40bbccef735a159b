"""One frame as streamed: where it lies, and the header fields with which a client decodes it by itself."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydicom import FileDataset
from pydicom.multival import MultiValue

from imaging_services.domain.dicom.header import read_header
from imaging_services.domain.dicom.pixel_layout import FramePlace, PixelLayout, layout_of
from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.errors import InvalidInput, NotFound

_NUMBERS = {
    "ImageHeight": ("Rows", 0),
    "ImageWidth": ("Columns", 0),
    "BitsAllocated": ("BitsAllocated", 0),
    "BitsStored": ("BitsStored", 0),
    "HighBit": ("HighBit", 0),
    "PixelRepresentation": ("PixelRepresentation", 0),
    "SamplesPerPixel": ("SamplesPerPixel", 1),
    "PlanarConfiguration": ("PlanarConfiguration", 0),
}
_TEXTS = (
    "PhotometricInterpretation",
    "DerivationDescription",
    "LossyImageCompression",
    "LossyImageCompressionMethod",
)
_NOT_IN_A_HEADER = re.compile(r"[^\x20-\x7e\xa0-\xff]")
_LONGEST_TEXT = 1024


@dataclass(frozen=True, slots=True)
class FrameSource:
    """The frames of an instance. ``fields`` are the same for each of them, and empty for native pixel data, whose
    geometry the study header document has."""

    layout: PixelLayout
    fields: Mapping[str, str]

    def frame(self, index: int) -> tuple[FramePlace, dict[str, str]]:
        """Frame ``index``, from 0: where it lies, and its header fields. Raises ``InvalidInput`` beyond the last.

        An Extended Offset Table may leave out a fragment's padding (PS3.3 section C.7.6.3.1.8). Clients of this format
        take a compressed frame of even length only, as fragments are (PS3.5 section A.4).
        """
        try:
            place = self.layout.place(index + 1)
        except NotFound as error:
            raise InvalidInput(f"frameNumber {index} counts from 0: {error}") from None
        if self.layout.encapsulation is not None:
            place = FramePlace([(start, length + length % 2) for start, length in place.spans])
        last = {"IsLast": "true"} if index == self.layout.frames - 1 else {}
        return place, {**last, **self.fields}


def read_frame_source(file: RangeFile) -> FrameSource:
    """Find the frames. Raises ``InvalidInput`` for an instance that has none."""
    header = read_header(file)
    try:
        layout = layout_of(file, header)
    except NotFound as error:
        raise InvalidInput(f"there are no frames to stream: {error}") from None
    return FrameSource(layout, {} if layout.encapsulation is None else _fields(header, layout))


def _fields(header: FileDataset, layout: PixelLayout) -> dict[str, str]:
    ratio = _text(header, "LossyImageCompressionRatio")
    return {
        "Compressed": "true",
        "TransferSyntaxUid": layout.transfer_syntax_uid,
        "NumberOfFrames": str(layout.frames),
        **{name: str(_number(header, keyword, default)) for name, (keyword, default) in _NUMBERS.items()},
        **{keyword: _text(header, keyword) for keyword in _TEXTS},
        "LossyImageCompressionRatio": ratio if re.fullmatch(r"\d+(\.\d+)?", ratio) else "0",
    }


def _number(header: FileDataset, keyword: str, default: int) -> int:
    value = _first(header, keyword)
    try:
        return default if value is None else int(value)
    except (TypeError, ValueError):
        return default


def _text(header: FileDataset, keyword: str) -> str:
    """The last value, in characters that a header may hold: what it was compressed with last is what counts."""
    value = _last(header, keyword)
    return "" if value is None else _NOT_IN_A_HEADER.sub("?", str(value).strip())[:_LONGEST_TEXT]


def _first(header: FileDataset, keyword: str) -> Any:
    value = header.get(keyword)
    return (value[0] if value else None) if isinstance(value, MultiValue) else value


def _last(header: FileDataset, keyword: str) -> Any:
    value = header.get(keyword)
    return (value[-1] if value else None) if isinstance(value, MultiValue) else value

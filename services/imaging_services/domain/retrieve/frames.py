"""The frames of one stored instance, read by ranges and as they are encoded; nothing is decoded here."""

from collections.abc import Collection
from dataclasses import dataclass

from pydicom import FileDataset
from pydicom.dataelem import RawDataElement

from imaging_services.domain.dicom.byte_order import swapped
from imaging_services.domain.dicom.header import is_deferred, load_deferred, read_header
from imaging_services.domain.dicom.pixel_description import PixelDescription, describe
from imaging_services.domain.dicom.pixel_layout import PIXEL_TAGS, PixelLayout, align_bits, layout_of
from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN, is_encapsulated
from imaging_services.domain.errors import BackendUnavailable, CannotTranscode, NotFound
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ObjectStore
from imaging_services.domain.retrieve.stored_file import StoredFile, open_stored

LARGEST_FRAME = 512 * 1024 * 1024
"""Longest frame that is taken into memory, bytes, encoded or decoded."""


@dataclass(frozen=True, slots=True)
class StoredFrames:
    """The frames of an opened instance."""

    file: StoredFile
    layout: PixelLayout
    pixels: PixelDescription

    @property
    def location(self) -> InstanceLocation:
        """Of the stored instance."""
        return self.file.location

    @property
    def count(self) -> int:
        """How many frames there are."""
        return self.layout.frames

    async def encoded(self, number: int) -> bytes:
        """Frame ``number``, from 1: native ones in little endian order, compressed ones as stored.

        Raises ``NotFound`` beyond the last frame, ``CannotTranscode`` when it is too long to be decoded.
        """
        if self.pixels.decoded_bytes > LARGEST_FRAME:
            raise CannotTranscode("a frame of the instance is too long to be decoded")
        place = self.layout.place(number)
        if sum(length for _, length in place.spans) > LARGEST_FRAME:
            raise CannotTranscode(f"frame {number} is too long to be decoded")
        blocks = []
        for start, length in place.spans:
            block = await self.file.get(start, length)
            if len(block) != length:
                raise BackendUnavailable("the object is shorter than the manifest says")
            blocks.append(block)
        frame = b"".join(blocks)
        if self.layout.swap > 1 and len(frame) % self.layout.swap == 0:
            frame = swapped(frame, self.layout.swap)
        return align_bits(frame, place.shift, place.bits) if place.bits else frame


@dataclass(frozen=True, slots=True)
class InstanceFrames(StoredFrames):
    """Frames with their ``header``: what stands before the pixel data; long values are left in the file."""

    header: FileDataset


async def open_frames(store: ObjectStore, location: InstanceLocation, *, load: Collection[int] = ()) -> InstanceFrames:
    """Find the frames of a stored instance. Long top-level values of the tags in ``load`` are taken in.

    Raises ``NoPixelData`` without any, ``NotFound`` when the object has vanished or the header does not say what the
    pixels are.
    """
    file = await open_stored(store, location)
    header, layout = await file.inspect(lambda content: _read(content, load), values_follow=file.has_one_frame)
    return InstanceFrames(file, layout, _described(header, layout), header)


def read_frames(file: RangeFile) -> tuple[PixelLayout, PixelDescription | None]:
    """Where the frames lie, and what they are; the latter is None when the header does not say. Reads no more of the
    header than that takes. Raises as ``open_frames``."""
    header = read_header(file, PIXEL_TAGS)
    layout = layout_of(file, header)
    try:
        return layout, _described(header, layout)
    except NotFound:
        return layout, None


def _described(header: FileDataset, layout: PixelLayout) -> PixelDescription:
    # Native frames are handed on in little endian order, whatever the file's is.
    native = not is_encapsulated(layout.transfer_syntax_uid)
    syntax = EXPLICIT_VR_LITTLE_ENDIAN if native else layout.transfer_syntax_uid
    return describe(header, transfer_syntax_uid=syntax, tag=layout.tag, frames=layout.frames)


def _read(file: RangeFile, load: Collection[int]) -> tuple[FileDataset, PixelLayout]:
    header = read_header(file)
    layout = layout_of(file, header)
    for tag in load:
        element = header.get_item(tag, keep_deferred=True) if tag in header else None
        if isinstance(element, RawDataElement) and is_deferred(element):
            load_deferred(header, element, file)
    return header, layout

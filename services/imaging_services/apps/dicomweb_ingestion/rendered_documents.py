"""Reports, documents and videos: instances that are shown otherwise than frame by frame."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.adapters.rendering.presentation import Presentation
from imaging_services.adapters.rendering.report import HTML, TEXT, render_report
from imaging_services.apps.dicomweb_ingestion.metadata import read_metadata
from imaging_services.domain.dicom.bulkdata import BulkValue, find_bulk_value
from imaging_services.domain.dicom.fragments import read_encapsulation
from imaging_services.domain.dicom.header import read_header
from imaging_services.domain.dicom.pixel_layout import Span, pixel_element
from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.errors import BackendUnavailable, CannotTranscode
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ObjectStore
from imaging_services.domain.retrieve.stored_file import StoredFile, open_stored

PDF = "application/pdf"
MP4 = "video/mp4"
MPEG = "video/mpeg"

_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
_ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
_MPEG2 = ("1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.101")
_MPEG4 = tuple(f"1.2.840.10008.1.2.4.{number}" for number in range(102, 109))
_VIDEOS = tuple(uid + fragmentable for uid in (*_MPEG2, *_MPEG4) for fragmentable in ("", ".1"))
_ENCAPSULATED_DOCUMENT = 0x00420011
_ENCAPSULATED_DOCUMENT_LENGTH = 0x00420015
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class ReportSource:
    """A structured report or a key object selection."""

    file: StoredFile
    workers: PixelWorkers

    @property
    def media_types(self) -> Sequence[str]:
        """HTML is the default of text (PS3.18 table 8.7.4-1)."""
        return HTML, TEXT

    async def render(self, media_type: str, _presentation: Presentation) -> AsyncIterator[bytes]:
        """The content tree."""
        document = await self.file.inspect(lambda content: read_metadata(content, ""))
        yield await self.workers.run(render_report, document, media_type)


@dataclass(frozen=True, slots=True)
class StreamSource:
    """Stored bytes that are a file of their own: a PDF, a video in an MP4 container or an MPEG-2 stream."""

    file: StoredFile
    media_type: str
    spans: Sequence[Span] = ()
    content: bytes = b""

    @property
    def media_types(self) -> Sequence[str]:
        """The stored one."""
        return (self.media_type,)

    async def render(self, _media_type: str, _presentation: Presentation) -> AsyncIterator[bytes]:
        """The bytes as stored."""
        if self.content:
            yield self.content
        for start, length in self.spans:
            sent = 0
            async for block in self.file.stream(start, length):
                sent += len(block)
                yield block
            if sent != length:
                raise BackendUnavailable("the object is shorter than the manifest says")


def is_document(location: InstanceLocation) -> bool:
    """True when ``open_document`` knows what to do with the instance."""
    named = location.sop_class_uid.startswith(_REPORTS) or location.sop_class_uid == _ENCAPSULATED_PDF
    return named or location.transfer_syntax_uid in _VIDEOS


async def open_document(
    store: ObjectStore, workers: PixelWorkers, location: InstanceLocation
) -> ReportSource | StreamSource:
    """Open a report, a document or a video. Raises ``NotFound`` when its object has vanished, ``CannotTranscode``
    when what is stored is no file that can be handed on."""
    file = await open_stored(store, location)
    if location.sop_class_uid.startswith(_REPORTS):
        return ReportSource(file, workers)
    if location.sop_class_uid == _ENCAPSULATED_PDF:
        value, length = await file.inspect(_encapsulated_document)
        if value.value is not None:
            return StreamSource(file, PDF, content=value.value[:length])
        return StreamSource(file, PDF, [(value.offset, length)])
    spans = await file.inspect(_code_stream)
    beginning = await file.get(spans[0][0], 12) if spans else b""
    if location.transfer_syntax_uid.removesuffix(".1") in _MPEG2:
        return StreamSource(file, MPEG, spans)
    if beginning[4:8] != b"ftyp":
        raise CannotTranscode("the video is stored as a transport stream: videos are not put into another container")
    return StreamSource(file, MP4, spans)


def _encapsulated_document(file: RangeFile) -> tuple[BulkValue, int]:
    """Encapsulated Document and how many of its bytes count: the value itself is padded to an even length."""
    value = find_bulk_value(file, (_ENCAPSULATED_DOCUMENT,))
    length = read_header(file, [_ENCAPSULATED_DOCUMENT_LENGTH]).get("EncapsulatedDocumentLength")
    told = isinstance(length, int) and value.length - 1 <= length <= value.length
    return value, int(length) if told and isinstance(length, int) else value.length


def _code_stream(file: RangeFile) -> Sequence[Span]:
    """All fragments: a video is one stream, whatever Number of Frames says (PS3.5 section 8.2.5)."""
    pixels = pixel_element(file, read_header(file, []))
    if pixels is None or pixels.length != _UNDEFINED:
        raise CannotTranscode("the instance has no encapsulated video")
    return read_encapsulation(file, pixels.offset, 1, None).frame(1)

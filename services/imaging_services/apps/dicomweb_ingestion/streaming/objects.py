"""Answers of image streaming: a frame, a header, a stored file, an encapsulated PDF; each with its Content-Length."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.exceptions import HTTPException
from starlette.responses import Response

from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.apps.dicomweb_ingestion.pieces import Piece, PieceSender, Write
from imaging_services.apps.dicomweb_ingestion.rendered_sources import frame_bytes
from imaging_services.apps.dicomweb_ingestion.responses import Pushed
from imaging_services.domain.budget import ByteBudget
from imaging_services.domain.dicom.bulkdata import find_bulk_value
from imaging_services.domain.errors import CannotTranscode, InvalidInput, NotFound, PermanentError
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ObjectStore
from imaging_services.domain.retrieve.stored_file import StoredFile, open_stored, stored_size
from imaging_services.domain.streaming.frame_source import FrameSource, read_frame_source
from imaging_services.domain.streaming.header_file import HeaderFile, deflated_data_set, read_header_file

DICOM = "application/dicom"
FRAME = "application/clearcanvas"
HEADER = "application/clearcanvas-header"
PDF = "application/pdf"

_ENCAPSULATED_PDF = "1.2.840.10008.5.1.4.1.1.104.1"
_ENCAPSULATED_DOCUMENT = 0x00420011
_SOURCES = 256
_SOURCE_FRAMES = 200_000  # compressed ones, of which each has its place in memory: some 200 bytes
_READ_AHEAD_BYTES = 32 * 1024 * 1024
_FRAGMENTS_AT_ONCE = 4


class StreamedObjects:
    """Reads what a request needs by ranges of the stored object. Where the frames of the last instances lie is
    remembered (256 of them, fewer when they have very many frames); object names are digests, so it never goes stale.
    """

    def __init__(self, store: ObjectStore, workers: PixelWorkers) -> None:
        self._store, self._workers = store, workers
        self._sender = PieceSender(ByteBudget(_READ_AHEAD_BYTES), _FRAGMENTS_AT_ONCE)
        self._sources: OrderedDict[str, FrameSource] = OrderedDict()

    async def file(self, location: InstanceLocation) -> Response:
        """The stored file, unchanged."""
        with _vanished():
            size = await stored_size(self._store, location)
        return self._pushed([Piece(b"", StoredFile(self._store, location, size), 0, size)], DICOM, {})

    async def header(self, location: InstanceLocation, stop_tag: int) -> Response:
        """A file with the elements below ``stop_tag``."""
        with _vanished():
            file = await open_stored(self._store, location)
            cut = await file.inspect(lambda header: read_header_file(header, location, stop_tag))
            if cut.deflated:
                return Response(await _deflated(file, cut), media_type=HEADER)
        return self._pushed([Piece(cut.head, file, cut.start, cut.length)], HEADER, {})

    async def frame(self, location: InstanceLocation, index: int) -> Response:
        """Frame ``index``, from 0, as it is stored. Raises ``InvalidInput`` beyond the last."""
        file, source = await self._source(location)
        place, fields = source.frame(index)
        swap = source.layout.swap
        pieces = [Piece(b"", file, start, length, swap, place.shift, place.bits) for start, length in place.spans]
        return self._pushed(pieces, FRAME, fields)

    async def rendered(self, location: InstanceLocation, index: int, media_type: str) -> Response:
        """Frame ``index``, from 0, as JPEG or PNG. Raises ``InvalidInput`` beyond the last, or when it cannot be."""
        if index >= await self.frames(location):
            raise InvalidInput(f"frameNumber {index} counts from 0 and is beyond the last frame")
        try:
            with _vanished():
                image = await frame_bytes(self._store, self._workers, location, index + 1, media_type)
        except CannotTranscode as error:
            raise InvalidInput(f"{media_type} is not supported for this instance: {error}") from error
        return Response(image, media_type=media_type)

    async def frames(self, location: InstanceLocation) -> int:
        """How many frames the instance has. Raises ``InvalidInput`` when it has none."""
        return (await self._source(location))[1].layout.frames

    async def pdf(self, location: InstanceLocation) -> Response:
        """The document of an Encapsulated PDF instance; 501 for any other."""
        if location.sop_class_uid != _ENCAPSULATED_PDF:
            raise HTTPException(501, "the instance is no Encapsulated PDF")
        with _vanished():
            file = await open_stored(self._store, location)
            found = await file.inspect(lambda header: find_bulk_value(header, (_ENCAPSULATED_DOCUMENT,)))
        if found.value is not None:
            return Response(found.value, media_type=PDF)
        return self._pushed([Piece(b"", file, found.offset, found.length)], PDF, {})

    async def _source(self, location: InstanceLocation) -> tuple[StoredFile, FrameSource]:
        with _vanished():
            file = await open_stored(self._store, location)
            source = self._sources.get(location.object_name)
            if source is not None:
                self._sources.move_to_end(location.object_name)
            else:
                source = await file.inspect(read_frame_source, values_follow=True)
                self._remember(location.object_name, source)
        return file, source

    def _remember(self, object_name: str, source: FrameSource) -> None:
        self._sources[object_name] = source
        held = sum(map(_places, self._sources.values()))
        while len(self._sources) > 1 and (len(self._sources) > _SOURCES or held > _SOURCE_FRAMES):
            held -= _places(self._sources.popitem(last=False)[1])

    def _pushed(self, pieces: list[Piece], media_type: str, headers: dict[str, str]) -> Response:
        async def produce(write: Write) -> None:
            with _vanished():
                await self._sender.send(pieces, write)

        return Pushed(produce, media_type, headers, sum(piece.sent for piece in pieces))


def _places(source: FrameSource) -> int:
    return 0 if source.layout.encapsulation is None else source.layout.frames


async def _deflated(file: StoredFile, cut: HeaderFile) -> bytes:
    data_set = await file.get(cut.start, cut.length)
    return cut.head + await asyncio.to_thread(deflated_data_set, data_set)


@contextmanager
def _vanished() -> Iterator[None]:
    """A recorded instance whose object is gone is the archive's fault, not the client's: 500, not 404."""
    try:
        yield
    except NotFound as error:
        raise PermanentError(f"the stored file cannot be read: {error}") from error

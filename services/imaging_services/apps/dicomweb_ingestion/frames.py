"""WADO-RS: frames and bulk data (PS3.18 sections 10.4.1.1.5 and 10.4.1.1.6)."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from starlette.requests import Request
from starlette.responses import Response

from imaging_services.apps.dicomweb_ingestion.negotiation import Representation, choose_bulk_data, choose_frames
from imaging_services.apps.dicomweb_ingestion.pieces import Piece, PieceSender, Write
from imaging_services.apps.dicomweb_ingestion.resources import instance_url
from imaging_services.apps.dicomweb_ingestion.responses import Pushed, boundary_of, byte_range, not_modified, validators
from imaging_services.apps.dicomweb_ingestion.stored_file import StoredFile, open_stored
from imaging_services.domain.dicom.bulkdata import BulkValue, find_bulk_value, parse_path
from imaging_services.domain.dicom.byte_order import swapped
from imaging_services.domain.dicom.media_types import OCTET_STREAM
from imaging_services.domain.dicom.multipart_writer import MultipartWriter
from imaging_services.domain.dicom.pixel_layout import PIXEL_DATA_TAGS, FramePlace, PixelLayout, read_layout
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ObjectStore

_LAYOUTS = 256
"""Instances whose frame positions are remembered; object names are digests, so they never go stale."""


class FrameRetriever:
    """Answers requests for frames and bulk data values by ranges of the stored object."""

    def __init__(self, store: ObjectStore, sender: PieceSender) -> None:
        self._store, self._sender = store, sender
        self._layouts: OrderedDict[str, PixelLayout] = OrderedDict()

    async def frames(self, request: Request, location: InstanceLocation, base: str) -> Response:
        """The frames that the path lists. Raises ``InvalidInput`` for a bad list, ``NotFound`` beyond the last."""
        numbers = frame_numbers(request.path_params["frames"])
        chosen = choose_frames(request, location.transfer_syntax_uid, single=len(numbers) == 1)
        headers = validators([location], "frames", numbers, chosen)
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        file = await open_stored(self._store, location)
        layout = await self._layout(file)
        return self._answer(file, layout, numbers, chosen, headers, f"{instance_url(base, location)}/frames/")

    async def bulk_data(self, request: Request, location: InstanceLocation, base: str) -> Response:
        """A value that metadata left out."""
        path = parse_path(request.path_params["path"])
        if len(path) == 1 and path[0] in PIXEL_DATA_TAGS:
            return await self._pixel_data(request, location, base)
        chosen = choose_bulk_data(request)
        headers = validators([location], "bulkdata", path, chosen)
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        file = await open_stored(self._store, location)
        value = await file.inspect(lambda header: find_bulk_value(header, path), values_follow=True)
        return self._value(request, file, value, chosen, headers)

    async def _pixel_data(self, request: Request, location: InstanceLocation, base: str) -> Response:
        """All pixel data: native as one value, encapsulated as one part a frame (PS3.18 section 8.7.3.3)."""
        file = await open_stored(self._store, location)
        layout = await self._layout(file)
        if layout.encapsulation is None:
            chosen = choose_bulk_data(request)
            headers = validators([location], "pixeldata", chosen)
            value = BulkValue(layout.value[1], offset=layout.value[0], swap=layout.swap)
            return not_modified(request, headers) or self._value(request, file, value, chosen, headers)
        numbers = range(1, layout.frames + 1)
        chosen = choose_frames(request, location.transfer_syntax_uid, single=layout.frames == 1)
        headers = validators([location], "pixeldata", chosen)
        url = f"{instance_url(base, location)}/frames/"
        return not_modified(request, headers) or self._answer(file, layout, numbers, chosen, headers, url)

    async def _layout(self, file: StoredFile) -> PixelLayout:
        key = file.location.object_name
        layout = self._layouts.get(key)
        if layout is None:
            layout = await file.inspect(read_layout, values_follow=True)
            self._layouts[key] = layout
            if len(self._layouts) > _LAYOUTS:
                self._layouts.popitem(last=False)
        self._layouts.move_to_end(key)
        return layout

    def _answer(
        self,
        file: StoredFile,
        layout: PixelLayout,
        numbers: Sequence[int],
        chosen: Representation,
        headers: dict[str, str],
        url: str,
    ) -> Response:
        places = [layout.place(number) for number in numbers]
        length = sum(place.length for place in places)
        if not chosen.multipart:
            pieces = list(_pieces(file, places[0], layout.swap, b""))
            return Pushed(lambda write: self._sender.send(pieces, write), chosen.content_type, headers, length)
        writer = MultipartWriter(boundary_of(headers))
        leads = [
            writer.head(_part_headers(chosen, place, f"{url}{number}"), first=index == 0)
            for index, (number, place) in enumerate(zip(numbers, places, strict=True))
        ]

        async def produce(write: Write) -> None:
            parts = zip(leads, places, strict=True)
            await self._sender.send(
                (piece for lead, place in parts for piece in _pieces(file, place, layout.swap, lead)), write
            )
            await write(writer.end)

        total = length + sum(map(len, leads)) + len(writer.end)
        return Pushed(produce, writer.content_type(chosen.media_type, chosen.transfer_syntax_uid), headers, total)

    def _value(
        self, request: Request, file: StoredFile, value: BulkValue, chosen: Representation, headers: dict[str, str]
    ) -> Response:
        if value.value is not None and value.swap > 1 and value.length % value.swap == 0:
            value = BulkValue(value.length, swapped(value.value, value.swap))
        if chosen.multipart:
            writer = MultipartWriter(boundary_of(headers))
            lead = writer.head({"Content-Type": OCTET_STREAM, "Content-Length": str(value.length)}, first=True)
            total = len(lead) + value.length + len(writer.end)
            return Pushed(
                lambda write: self._write_value(file, value, lead, writer.end, write),
                writer.content_type(OCTET_STREAM),
                headers,
                total,
            )
        wanted = byte_range(request, value.length) if value.swap == 1 or value.value is not None else None
        start, length = wanted or (0, value.length)
        part = _slice(value, start, length)
        headers = {**headers, "Accept-Ranges": "bytes"}
        response = Pushed(lambda write: self._write_value(file, part, b"", b"", write), OCTET_STREAM, headers, length)
        if wanted:
            response.make_partial(start, length, value.length)
        return response

    async def _write_value(self, file: StoredFile, value: BulkValue, lead: bytes, end: bytes, write: Write) -> None:
        if value.value is not None:
            await write(lead + value.value + end)
            return
        await self._sender.send([Piece(lead, file, value.offset, value.length, value.swap)], write)
        if end:
            await write(end)


def frame_numbers(text: str) -> list[int]:
    """A comma separated list of frame numbers from 1. Raises ``InvalidInput``."""
    numbers = [int(item) if item.isascii() and item.isdigit() and len(item) < 10 else 0 for item in text.split(",")]
    if min(numbers) < 1:
        raise InvalidInput("frames are named by numbers from 1, separated by commas")
    return numbers


def _slice(value: BulkValue, start: int, length: int) -> BulkValue:
    content = value.value[start : start + length] if value.value is not None else None
    return BulkValue(length, content, value.offset + start, value.swap)


def _part_headers(chosen: Representation, place: FramePlace, url: str) -> dict[str, str]:
    return {
        "Content-Type": chosen.content_type,
        "Content-Length": str(place.length),
        "Content-Location": url,
    }


def _pieces(file: StoredFile, place: FramePlace, swap: int, lead: bytes) -> Iterator[Piece]:
    for start, length in place.spans:
        yield Piece(lead, file, start, length, swap, place.shift, place.bits)
        lead = b""

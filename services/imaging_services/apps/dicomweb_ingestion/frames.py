"""WADO-RS: frames and bulk data (PS3.18 sections 10.4.1.1.5 and 10.4.1.1.6)."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from starlette.requests import Request
from starlette.responses import Response

from imaging_services.adapters.pixels.transcoder import Transcoder
from imaging_services.apps.dicomweb_ingestion.bulk_values import bulk_value
from imaging_services.apps.dicomweb_ingestion.negotiation import Representation, choose_bulk_data, choose_frames
from imaging_services.apps.dicomweb_ingestion.pieces import ALONE_BYTES, Piece, PieceSender, Write
from imaging_services.apps.dicomweb_ingestion.resources import instance_url
from imaging_services.apps.dicomweb_ingestion.responses import Pushed, boundary_of, not_modified, validators
from imaging_services.apps.dicomweb_ingestion.transcoded_frames import first_possible, transcoded_frames
from imaging_services.domain.dicom.bulkdata import BulkValue, find_bulk_value, parse_path
from imaging_services.domain.dicom.multipart_writer import MultipartWriter
from imaging_services.domain.dicom.pixel_description import PixelDescription
from imaging_services.domain.dicom.pixel_layout import PIXEL_DATA_TAGS, FramePlace, PixelLayout
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN, is_encapsulated
from imaging_services.domain.errors import CannotTranscode, InvalidInput
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ObjectStore
from imaging_services.domain.retrieve.frames import StoredFrames, read_frames
from imaging_services.domain.retrieve.plain_images import plain_frames
from imaging_services.domain.retrieve.stored_file import StoredFile, open_stored

_LAYOUTS = 256
"""Instances whose frame positions are remembered; object names are digests, so they never go stale."""


class FrameRetriever:
    """Answers requests for frames and bulk data values by ranges of the stored object."""

    def __init__(self, store: ObjectStore, sender: PieceSender, transcoder: Transcoder) -> None:
        self._store, self._sender, self._transcoder = store, sender, transcoder
        self._known: OrderedDict[str, tuple[PixelLayout, PixelDescription | None]] = OrderedDict()

    async def frames(self, request: Request, location: InstanceLocation, base: str) -> Response:
        """The frames that the path lists. Raises ``InvalidInput`` for a bad list, ``NotFound`` beyond the last."""
        numbers = frame_numbers(request.path_params["frames"])
        choices = choose_frames(request, location.transfer_syntax_uid, single=len(numbers) == 1)
        return await self._frames(request, location, base, choices, numbers)

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
        return bulk_value(request, self._sender, file, value, chosen, headers)

    async def _pixel_data(self, request: Request, location: InstanceLocation, base: str) -> Response:
        """All pixel data: native as one value, encapsulated as one part a frame (PS3.18 section 8.7.3.3)."""
        file = await open_stored(self._store, location)
        layout = await self._layout(file)
        if layout.encapsulation is None:
            chosen = choose_bulk_data(request)
            headers = validators([location], "pixeldata", chosen)
            value = BulkValue(layout.value[1], offset=layout.value[0], swap=layout.swap)
            return not_modified(request, headers) or bulk_value(request, self._sender, file, value, chosen, headers)
        choices = choose_frames(request, location.transfer_syntax_uid, single=layout.frames == 1)
        return await self._frames(request, location, base, choices, range(1, layout.frames + 1))

    async def _frames(
        self,
        request: Request,
        location: InstanceLocation,
        base: str,
        choices: Sequence[Representation],
        numbers: Sequence[int],
    ) -> Response:
        """The first choice that this image can be had in."""
        url = f"{instance_url(base, location)}/frames/"
        stored = (location.transfer_syntax_uid, EXPLICIT_VR_LITTLE_ENDIAN)
        native = not is_encapsulated(location.transfer_syntax_uid)
        if choices[0].transfer_syntax_uid == stored[native]:
            headers = validators([location], "frames", list(numbers), choices[0])
            unchanged = not_modified(request, headers)
            if unchanged is not None:
                return unchanged
            file = await open_stored(self._store, location)
            return self._answer(file, await self._layout(file), numbers, choices[0], headers, url)
        file = await open_stored(self._store, location)
        layout, pixels = await self._read(file)
        if pixels is None:
            raise CannotTranscode("the header does not say what the pixels are")
        frames = StoredFrames(file, layout, pixels)
        chosen = first_possible(choices, frames)
        headers = validators([location], "frames", list(numbers), chosen)
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        return transcoded_frames(self._transcoder, frames, numbers, chosen, headers, url)

    async def _layout(self, file: StoredFile) -> PixelLayout:
        return (await self._read(file))[0]

    async def _read(self, file: StoredFile) -> tuple[PixelLayout, PixelDescription | None]:
        key = file.location.object_name
        known = self._known.get(key)
        if known is None:
            known = await file.inspect(read_frames, values_follow=file.has_one_frame, at_once=plain_frames)
            self._known[key] = known
            if len(self._known) > _LAYOUTS:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return known

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
        short = len(places) == 1 and length <= ALONE_BYTES
        if not chosen.multipart:
            pieces = list(_pieces(file, places[0], layout.swap, b""))
            return Pushed(
                lambda write: self._sender.send(pieces, write), chosen.content_type, headers, length, short=short
            )
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
        content_type = writer.content_type(chosen.media_type, chosen.transfer_syntax_uid)
        return Pushed(produce, content_type, headers, total, short=short)


def frame_numbers(text: str) -> list[int]:
    """A comma separated list of frame numbers from 1. Raises ``InvalidInput``."""
    numbers = [int(item) if item.isascii() and item.isdigit() and len(item) < 10 else 0 for item in text.split(",")]
    if min(numbers) < 1:
        raise InvalidInput("frames are named by numbers from 1, separated by commas")
    if len(set(numbers)) < len(numbers):
        raise InvalidInput("a frame is named twice")
    return numbers


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

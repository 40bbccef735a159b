"""WADO-RS: whole instances one after the other, as stored or transcoded (PS3.18 section 10.4.1.1)."""

from collections.abc import AsyncIterator, Sequence

from starlette.requests import Request
from starlette.responses import Response

from imaging_services.adapters.pixels.transcoder import Transcoder
from imaging_services.apps.dicomweb_ingestion.negotiation import InstanceChoice, choose_instances
from imaging_services.apps.dicomweb_ingestion.pieces import Piece, PieceSender, Write
from imaging_services.apps.dicomweb_ingestion.read_ahead import in_order
from imaging_services.apps.dicomweb_ingestion.resources import instance_url
from imaging_services.apps.dicomweb_ingestion.responses import Pushed, boundary_of, byte_range, not_modified, validators
from imaging_services.domain.dicom.media_types import DICOM
from imaging_services.domain.dicom.multipart_writer import MultipartWriter
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ObjectStore
from imaging_services.domain.retrieve.stored_file import StoredFile, stored_size

_TRANSCODED_AHEAD = 2
"""Instances whose first frame is encoded before their turn."""


class InstanceRetriever:
    """Answers study, series and instance requests."""

    def __init__(self, store: ObjectStore, sender: PieceSender, transcoder: Transcoder) -> None:
        self._store, self._sender, self._transcoder = store, sender, transcoder

    async def answer(
        self, request: Request, locations: Sequence[InstanceLocation], base: str, *, single: bool
    ) -> Response:
        """Stream the instances. Raises ``NotFound`` when the first one's object has vanished."""
        chosen = choose_instances(request, locations, single=single)
        headers = validators(locations, "instances", chosen.multipart, *sorted(chosen.targets.items()))
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        if not chosen.as_stored:
            if chosen.multipart:
                return self._transcoded(locations, chosen, base, headers)
            syntax, blocks = await self._blocks(locations[0], chosen)
            return Pushed(lambda write: _copy(blocks, write), f"{DICOM}; transfer-syntax={syntax}", headers)
        files = [StoredFile(self._store, location, await stored_size(self._store, location)) for location in locations]
        if chosen.multipart:
            return self._multipart(files, base, headers)
        return self._plain(request, files[0], headers)

    def _multipart(self, files: Sequence[StoredFile], base: str, headers: dict[str, str]) -> Response:
        writer = MultipartWriter(boundary_of(headers))
        pieces = [
            Piece(writer.head(_stored_part(file, base), first=index == 0), file, 0, file.size)
            for index, file in enumerate(files)
        ]

        async def produce(write: Write) -> None:
            await self._sender.send(pieces, write)
            await write(writer.end)

        length = sum(piece.sent for piece in pieces) + len(writer.end)
        return Pushed(produce, writer.content_type(DICOM), headers, length)

    def _plain(self, request: Request, file: StoredFile, headers: dict[str, str]) -> Response:
        wanted = byte_range(request, file.size, headers)
        start, length = wanted or (0, file.size)
        piece = Piece(b"", file, start, length)
        content_type = f"{DICOM}; transfer-syntax={file.location.transfer_syntax_uid}"
        headers = {**headers, "Accept-Ranges": "bytes"}
        response = Pushed(lambda write: self._sender.send([piece], write), content_type, headers, length)
        if wanted:
            response.make_partial(start, length, file.size)
        return response

    def _transcoded(
        self, locations: Sequence[InstanceLocation], chosen: InstanceChoice, base: str, headers: dict[str, str]
    ) -> Response:
        """Instances of an unknown length. The first one is prepared before the status is sent; when a later one cannot
        be transcoded, or is broken, the answer breaks off."""
        writer = MultipartWriter(boundary_of(headers))

        async def prepare(location: InstanceLocation) -> tuple[InstanceLocation, str, AsyncIterator[bytes]]:
            return location, *await self._blocks(location, chosen)

        async def produce(write: Write) -> None:
            first = True

            async def emit(prepared: tuple[InstanceLocation, str, AsyncIterator[bytes]]) -> None:
                nonlocal first
                location, syntax, blocks = prepared
                await write(writer.head(_part_headers(location, syntax, base), first=first))
                first = False
                await _copy(blocks, write)

            await in_order(locations, prepare, emit, ahead=_TRANSCODED_AHEAD)
            await write(writer.end)

        return Pushed(produce, writer.content_type(DICOM), headers)

    async def _blocks(self, location: InstanceLocation, chosen: InstanceChoice) -> tuple[str, AsyncIterator[bytes]]:
        """The transfer syntax that an instance has in the answer, and its Part 10 file."""
        target = chosen.targets[location.transfer_syntax_uid]
        if target == location.transfer_syntax_uid:
            return target, self._store.stream(location.object_name)
        instance = await self._transcoder.transcode(location, target)
        return instance.transfer_syntax_uid, instance.part10()


async def _copy(blocks: AsyncIterator[bytes], write: Write) -> None:
    async for block in blocks:
        await write(block)


def _stored_part(file: StoredFile, base: str) -> dict[str, str]:
    headers = _part_headers(file.location, file.location.transfer_syntax_uid, base)
    return {**headers, "Content-Length": str(file.size)}


def _part_headers(location: InstanceLocation, transfer_syntax_uid: str, base: str) -> dict[str, str]:
    return {
        "Content-Type": f"{DICOM}; transfer-syntax={transfer_syntax_uid}",
        "Content-Location": instance_url(base, location),
    }

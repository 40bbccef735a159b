"""WADO-RS: whole instances as stored, one after the other (PS3.18 section 10.4.1.1)."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from imaging_services.apps.dicomweb_ingestion.negotiation import choose_instances
from imaging_services.apps.dicomweb_ingestion.pieces import Piece, PieceSender, Write
from imaging_services.apps.dicomweb_ingestion.resources import instance_url
from imaging_services.apps.dicomweb_ingestion.responses import Pushed, boundary_of, byte_range, not_modified, validators
from imaging_services.apps.dicomweb_ingestion.stored_file import StoredFile, stored_size
from imaging_services.domain.dicom.media_types import DICOM
from imaging_services.domain.dicom.multipart_writer import MultipartWriter
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ObjectStore


class InstanceRetriever:
    """Answers study, series and instance requests."""

    def __init__(self, store: ObjectStore, sender: PieceSender) -> None:
        self._store, self._sender = store, sender

    async def answer(
        self, request: Request, locations: Sequence[InstanceLocation], base: str, *, single: bool
    ) -> Response:
        """Stream the instances. Raises ``NotFound`` when the first one's object has vanished."""
        chosen = choose_instances(request, locations, single=single)
        headers = validators(locations, "instances", chosen.multipart)
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        files = [StoredFile(self._store, location, await stored_size(self._store, location)) for location in locations]
        if chosen.multipart:
            return self._multipart(files, base, headers)
        return self._plain(request, files[0], headers)

    def _multipart(self, files: Sequence[StoredFile], base: str, headers: dict[str, str]) -> Response:
        writer = MultipartWriter(boundary_of(headers))
        pieces = [
            Piece(writer.head(_part_headers(file, base), first=index == 0), file, 0, file.size)
            for index, file in enumerate(files)
        ]

        async def produce(write: Write) -> None:
            await self._sender.send(pieces, write)
            await write(writer.end)

        length = sum(piece.sent for piece in pieces) + len(writer.end)
        return Pushed(produce, writer.content_type(DICOM), headers, length)

    def _plain(self, request: Request, file: StoredFile, headers: dict[str, str]) -> Response:
        wanted = byte_range(request, file.size)
        start, length = wanted or (0, file.size)
        piece = Piece(b"", file, start, length)
        content_type = f"{DICOM}; transfer-syntax={file.location.transfer_syntax_uid}"
        response = Pushed(lambda write: self._sender.send([piece], write), content_type, headers, length)
        if wanted:
            response.make_partial(start, length, file.size)
        return response


def _part_headers(file: StoredFile, base: str) -> dict[str, str]:
    return {
        "Content-Type": f"{DICOM}; transfer-syntax={file.location.transfer_syntax_uid}",
        "Content-Length": str(file.size),
        "Content-Location": instance_url(base, file.location),
    }

"""WADO-RS: one bulk data value, whole or a range of it, plainly or as the part of a multipart answer."""

from starlette.requests import Request
from starlette.responses import Response

from imaging_services.apps.dicomweb_ingestion.negotiation import Representation
from imaging_services.apps.dicomweb_ingestion.pieces import Piece, PieceSender, Write
from imaging_services.apps.dicomweb_ingestion.responses import Pushed, boundary_of, byte_range
from imaging_services.domain.dicom.bulkdata import BulkValue
from imaging_services.domain.dicom.byte_order import swapped
from imaging_services.domain.dicom.media_types import OCTET_STREAM
from imaging_services.domain.dicom.multipart_writer import MultipartWriter
from imaging_services.domain.retrieve.stored_file import StoredFile


def bulk_value(
    request: Request,
    sender: PieceSender,
    file: StoredFile,
    value: BulkValue,
    chosen: Representation,
    headers: dict[str, str],
) -> Response:
    """The value's bytes in little endian order. A range is 206, also within a part, which then says which bytes it has;
    416 when it lies outside."""
    if value.value is not None and value.swap > 1 and value.length % value.swap == 0:
        value = BulkValue(value.length, swapped(value.value, value.swap))
    # What is swapped on its way cannot be begun anywhere: the whole value is an answer too (RFC 9110 section 14.2).
    wanted = byte_range(request, value.length, headers) if value.swap == 1 or value.value is not None else None
    start, length = wanted or (0, value.length)
    lead, end, content_type = b"", b"", OCTET_STREAM
    if chosen.multipart:
        writer = MultipartWriter(boundary_of(headers))
        names = {"Content-Type": OCTET_STREAM, "Content-Length": str(length)}
        if wanted:
            names["Content-Range"] = f"bytes {start}-{start + length - 1}/{value.length}"
        lead, end, content_type = writer.head(names, first=True), writer.end, writer.content_type(OCTET_STREAM)
    part = _slice(value, start, length)

    async def produce(write: Write) -> None:
        if part.value is not None:
            await write(lead + part.value + end)
            return
        await sender.send([Piece(lead, file, part.offset, part.length, part.swap)], write)
        if end:
            await write(end)

    total = len(lead) + length + len(end)
    response = Pushed(produce, content_type, {**headers, "Accept-Ranges": "bytes"}, total)
    if wanted:
        response.make_partial(start, length, value.length)
    return response


def _slice(value: BulkValue, start: int, length: int) -> BulkValue:
    content = value.value[start : start + length] if value.value is not None else None
    return BulkValue(length, content, value.offset + start, value.swap)

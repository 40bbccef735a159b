"""WADO-RS: frames in another transfer syntax than the stored one, decoded and encoded on request."""

from collections.abc import Sequence

from starlette.responses import Response

from imaging_services.adapters.pixels.syntaxes import require_encodable, same_code_stream
from imaging_services.adapters.pixels.transcoder import Transcoder
from imaging_services.apps.dicomweb_ingestion.negotiation import Representation
from imaging_services.apps.dicomweb_ingestion.pieces import Write
from imaging_services.apps.dicomweb_ingestion.read_ahead import in_order
from imaging_services.apps.dicomweb_ingestion.responses import Pushed, boundary_of
from imaging_services.domain.dicom.multipart_writer import MultipartWriter
from imaging_services.domain.errors import CannotTranscode
from imaging_services.domain.retrieve.frames import StoredFrames

_AHEAD = 2
"""Frames of one request that are transcoded at once."""


def first_possible(choices: Sequence[Representation], frames: StoredFrames) -> Representation:
    """The best of the accepted representations that this image can be had in. Raises ``CannotTranscode`` with the
    reason why the best one is not possible."""
    reason: CannotTranscode | None = None
    for choice in choices:
        target = choice.transfer_syntax_uid or frames.pixels.transfer_syntax_uid
        if same_code_stream(frames.pixels.transfer_syntax_uid, target):
            return choice
        try:
            require_encodable(frames.pixels, target)
        except CannotTranscode as error:
            reason = reason or error
        else:
            return choice
    raise reason or CannotTranscode("the image cannot be had in any of the accepted media types")


def transcoded_frames(
    transcoder: Transcoder,
    frames: StoredFrames,
    numbers: Sequence[int],
    chosen: Representation,
    headers: dict[str, str],
    url: str,
) -> Response:
    """Stream the frames, the next ones encoded while one is written; a number alone when it is not multipart.

    Raises ``NotFound`` for a number beyond the last frame before anything is decoded.
    """
    for number in numbers:
        frames.layout.place(number)
    target = chosen.transfer_syntax_uid or frames.pixels.transfer_syntax_uid
    writer = MultipartWriter(boundary_of(headers))

    async def encode(number: int) -> tuple[int, bytes]:
        return number, await transcoder.transcode_frame(frames, number, target)

    async def produce(write: Write) -> None:
        first = True

        async def emit(encoded: tuple[int, bytes]) -> None:
            nonlocal first
            number, frame = encoded
            if chosen.multipart:
                names = {"Content-Type": chosen.content_type, "Content-Length": str(len(frame))}
                await write(writer.head({**names, "Content-Location": f"{url}{number}"}, first=first))
                first = False
            await write(frame)

        await in_order(numbers, encode, emit, ahead=_AHEAD)
        if chosen.multipart:
            await write(writer.end)

    if not chosen.multipart:
        return Pushed(produce, chosen.content_type, headers)
    return Pushed(produce, writer.content_type(chosen.media_type, chosen.transfer_syntax_uid), headers)

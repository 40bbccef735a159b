"""The forms that a STOW-RS request comes in (PS3.18 section 10.5.1.2), told by its Content-Type."""

from dataclasses import dataclass
from typing import Protocol

from starlette.exceptions import HTTPException

from imaging_services.domain.dicom.media_types import (
    DICOM,
    DICOM_JSON,
    DICOM_XML,
    JSON,
    MULTIPART,
    MediaRange,
    parse_media_type,
)
from imaging_services.domain.dicom.multipart import MultipartParser, PartEnd, PartEvent, PartStart
from imaging_services.domain.errors import InvalidInput

_METADATA = (DICOM_JSON, DICOM_XML, JSON)
_FORMS = f'{MULTIPART}; type="{DICOM}", or with type {DICOM_JSON} or {DICOM_XML} and bulk data, or {DICOM} alone'


class PartParser(Protocol):
    """Takes a body's blocks, gives the events of its parts."""

    def feed(self, block: bytes) -> list[PartEvent]:
        """The events that the next block completes. Raises ``InvalidInput``."""
        ...

    def close(self) -> list[PartEvent]:
        """The body has ended; the events that this completes. Raises ``InvalidInput`` when it is too early."""
        ...


@dataclass(frozen=True, slots=True)
class Form:
    """How to take the body apart, and whether its parts are metadata and bulk data or whole instances."""

    parser: PartParser
    metadata: bool


class SinglePart:
    """A body without multipart: the one part, with the request's own Content-Type."""

    def __init__(self, content_type: str) -> None:
        self._start: PartStart | None = PartStart({"content-type": content_type})

    def feed(self, block: bytes) -> list[PartEvent]:
        """The block itself."""
        if self._start is None:
            return [block]
        start, self._start = self._start, None
        return [start, block]

    def close(self) -> list[PartEvent]:
        """The end of the part. Raises ``InvalidInput`` when the body was empty."""
        if self._start is not None:
            raise InvalidInput("the request has no body")
        return [PartEnd()]


def form_of(content_type: str | None) -> Form:
    """The form of a request. Raises HTTP 415, ``InvalidInput`` for multipart without a boundary."""
    if not content_type:
        raise HTTPException(415, f"the request has no Content-Type; instances are stored as {_FORMS}")
    found = parse_media_type(content_type)
    if found.type in (DICOM, *_METADATA):
        return Form(SinglePart(content_type), found.type != DICOM)
    payload = found.parameters.get("type", DICOM).lower()
    if found.type != MULTIPART or payload not in (DICOM, *_METADATA):
        raise HTTPException(415, f"instances are stored as {_FORMS}, not as {content_type[:200]}")
    return Form(MultipartParser(_boundary(found)), payload != DICOM)


def _boundary(media_type: MediaRange) -> str:
    boundary = media_type.parameters.get("boundary")
    if not boundary:
        raise InvalidInput("the Content-Type has no boundary")
    return boundary

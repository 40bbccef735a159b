"""Which representation a retrieve request gets: the stored one, if the Accept header allows it.

Stored bytes are not transcoded. Without a ``transfer-syntax`` parameter the stored transfer syntax is returned, as
clients that do not name one can read the files they stored; a different one that is named gets 406 with the reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request

from imaging_services.domain.dicom.media_types import (
    DICOM,
    DICOM_JSON,
    DICOM_XML,
    JSON,
    OCTET_STREAM,
    MediaRange,
    parse_accept,
    pixel_media_type,
)
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN, is_encapsulated
from imaging_services.domain.manifest.query import InstanceLocation


@dataclass(frozen=True, slots=True)
class Representation:
    """``media_type`` of the payload, whether it travels as multipart, and its transfer syntax if it is pixels."""

    media_type: str
    multipart: bool
    transfer_syntax_uid: str | None = None

    @property
    def content_type(self) -> str:
        """Content-Type of the payload itself."""
        suffix = f"; transfer-syntax={self.transfer_syntax_uid}" if self.transfer_syntax_uid else ""
        return self.media_type + suffix


def accepted(request: Request) -> list[MediaRange]:
    """What the client accepts: the ``accept`` query parameter goes before the header (PS3.18 section 8.3.3)."""
    return parse_accept(request.query_params.get("accept") or ", ".join(request.headers.getlist("accept")))


def choose_document(request: Request) -> Representation:
    """JSON, or XML when it is asked for and wanted more, for metadata and search results (PS3.18 table 8.7.3-1)."""
    for wanted in accepted(request):
        if wanted.is_multipart:
            if wanted.payload in (DICOM_XML, "*/*"):
                return Representation(DICOM_XML, multipart=True)
        elif wanted.type in (JSON, DICOM_JSON, "application/*", "*/*", "*"):
            return Representation(JSON if wanted.type == JSON else DICOM_JSON, multipart=False)
    raise _not_acceptable(f'{DICOM_JSON} or multipart/related; type="{DICOM_XML}"')


def choose_instances(request: Request, locations: Sequence[InstanceLocation], *, single: bool) -> Representation:
    """How instances are returned. 406 when one of them is stored in a transfer syntax that is not accepted."""
    ranges = [wanted for wanted in accepted(request) if wanted.covers(DICOM) and (single or _may_be_parts(wanted))]
    if not ranges:
        raise _not_acceptable(f'multipart/related; type="{DICOM}"' + (f" or {DICOM}" if single else ""))
    stored = sorted({location.transfer_syntax_uid for location in locations})
    for uid in stored:
        if not any(wanted.transfer_syntax in (None, "*", uid) for wanted in ranges):
            raise _not_acceptable(f"transfer-syntax={uid}, as stored: instances are not transcoded")
    return Representation(DICOM, multipart=not (single and ranges[0].type == DICOM))


def choose_frames(request: Request, stored: str, *, single: bool) -> Representation:
    """How frames are returned (PS3.18 section 8.7.3.3): native ones as octet-stream, in Explicit VR Little Endian,
    compressed ones as stored, in their own media type or, where ``transfer-syntax`` allows it, as octet-stream."""
    uid = stored if is_encapsulated(stored) else EXPLICIT_VR_LITTLE_ENDIAN
    image = pixel_media_type(uid)
    for wanted in accepted(request):
        if not (single or _may_be_parts(wanted)):
            continue
        if wanted.transfer_syntax not in (None, "*", uid):
            continue
        multipart = wanted.is_multipart or wanted.type in ("*/*", "*")
        if wanted.covers(image) and not (wanted.payload == OCTET_STREAM and image != OCTET_STREAM):
            return Representation(image, multipart, uid)
        if wanted.payload == OCTET_STREAM and wanted.transfer_syntax in ("*", uid):
            return Representation(OCTET_STREAM, multipart, uid)
    raise _not_acceptable(
        f'multipart/related; type="{image}"; transfer-syntax={uid}, as stored: pixel data is not decoded'
    )


def choose_bulk_data(request: Request) -> Representation:
    """How a bulk data value is returned: octet-stream, in a part or plainly (PS3.18 section 10.4.4)."""
    for wanted in accepted(request):
        if wanted.covers(OCTET_STREAM):
            ranged = "range" in request.headers
            return Representation(OCTET_STREAM, multipart=wanted.type != OCTET_STREAM and not ranged)
    raise _not_acceptable(f'multipart/related; type="{OCTET_STREAM}" or {OCTET_STREAM}')


def _may_be_parts(wanted: MediaRange) -> bool:
    return wanted.is_multipart or wanted.type in ("*/*", "*")


def _not_acceptable(available: str) -> HTTPException:
    return HTTPException(406, f"none of the accepted media types is available; available: {available}")

"""Which representation a retrieve request gets (PS3.18 sections 8.7.3 to 8.7.8, RFC 9110 section 12.5.1).

Of what can be had, that which the client weighs most is chosen; of equal ones that which the client names first; of
what one media range covers, what is stored, as nothing is then decoded. So a range without a ``transfer-syntax``
parameter gets the stored transfer syntax when its media type has it, and only otherwise the media type's default.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.requests import Request

from imaging_services.adapters.pixels.syntaxes import (
    COMPRESSED,
    JPEG_2000_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    can_transcode,
)
from imaging_services.domain.dicom.media_types import (
    DICOM,
    DICOM_JSON,
    DICOM_XML,
    JSON,
    OCTET_STREAM,
    MediaRange,
    default_transfer_syntax,
    parse_accept,
    parse_ranges,
    pixel_media_type,
)
from imaging_services.domain.dicom.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    is_encapsulated,
)
from imaging_services.domain.manifest.query import InstanceLocation

# Implicit VR and big endian shall not be used with web services (PS3.18 section 8.7.3), unless stored so.
_WELL_KNOWN = (EXPLICIT_VR_LITTLE_ENDIAN, JPEG_LOSSLESS_SV1, JPEG_LS_LOSSLESS, JPEG_2000_LOSSLESS)
_TARGETS = (*_WELL_KNOWN, *sorted({*COMPRESSED, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN}.difference(_WELL_KNOWN)))


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


@dataclass(frozen=True, slots=True)
class InstanceChoice:
    """How instances travel: ``targets`` has the transfer syntax for each that is stored."""

    multipart: bool
    targets: dict[str, str]

    @property
    def as_stored(self) -> bool:
        """True when no instance is transcoded."""
        return all(stored == target for stored, target in self.targets.items())


def _accept(request: Request) -> str:
    """The ``accept`` query parameter goes before the header (PS3.18 section 8.3.3.1). A plus sign that was not escaped
    comes in it as a space."""
    named = ", ".join(request.query_params.getlist("accept"))
    return named.replace("dicom ", "dicom+") or ", ".join(request.headers.getlist("accept"))


def accepted(request: Request) -> list[MediaRange]:
    """What the client accepts, most wanted first."""
    return parse_accept(_accept(request))


def choose_document(request: Request) -> Representation:
    """JSON, or XML when it is asked for and wanted more, for metadata and search results (PS3.18 table 8.7.3-1)."""
    for wanted in accepted(request):
        if wanted.is_multipart:
            if wanted.payload in (DICOM_XML, "application/*", "*/*"):
                return Representation(DICOM_XML, multipart=True)
        elif wanted.type in (JSON, DICOM_JSON, "application/*", "*/*", "*"):
            return Representation(JSON if wanted.type == JSON else DICOM_JSON, multipart=False)
    raise not_acceptable(f'{DICOM_JSON} or multipart/related; type="{DICOM_XML}"')


def choose_instances(request: Request, locations: Sequence[InstanceLocation], *, single: bool) -> InstanceChoice:
    """How instances are returned. 406 when one of them cannot be had in a transfer syntax that is accepted."""
    ranges = [one for one in parse_ranges(_accept(request)) if one.covers(DICOM) and (single or _may_be_parts(one))]
    if not any(one.q > 0 for one in ranges):
        raise not_acceptable(f'multipart/related; type="{DICOM}"' + (f" or {DICOM}" if single else ""))
    targets, plain = {}, single
    for stored in sorted({location.transfer_syntax_uid for location in locations}):
        possible = [stored, *(uid for uid in _TARGETS if uid != stored and can_transcode(stored, uid))]
        found = _best(ranges, [(DICOM, uid, uid == stored) for uid in possible])
        if not found:
            raise not_acceptable(f"transfer-syntax={' or '.join(possible)}")
        (_, targets[stored], _), wanted = found[0]
        plain = plain and not _may_be_parts(wanted)
    return InstanceChoice(not plain, targets)


def choose_frames(request: Request, stored: str, *, single: bool) -> list[Representation]:
    """How frames may be returned (PS3.18 section 8.7.3.3), best first: as stored, in the media type of their
    compression or, where ``transfer-syntax`` says so, as octet-stream; uncompressed; or compressed otherwise. Whether
    an image can be transcoded as it is wished, its header says, so there may be several."""
    native = not is_encapsulated(stored)
    uid = EXPLICIT_VR_LITTLE_ENDIAN if native else stored
    possible = [(pixel_media_type(uid), uid, True)]
    if not native:
        possible += [(OCTET_STREAM, uid, False)] if possible[0][0] != OCTET_STREAM else []
    targets = [target for target in _TARGETS if target != DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN]
    possible += [(pixel_media_type(to), to, False) for to in targets if to != uid and can_transcode(stored, to)]
    ranges = [one for one in parse_ranges(_accept(request)) if single or _may_be_parts(one)]
    found = _best(ranges, possible)
    if not found:
        available = ", ".join(f'"{media_type}"; transfer-syntax={to}' for media_type, to, _ in possible)
        raise not_acceptable(f"multipart/related; type= one of {available}")
    return [
        Representation(
            media_type if "*" in wanted.payload else wanted.payload,
            multipart=wanted.is_multipart or wanted.type in ("*/*", "*"),
            transfer_syntax_uid=to,
        )
        for (media_type, to, _), wanted in found
    ]


def choose_bulk_data(request: Request) -> Representation:
    """How a bulk data value is returned: octet-stream, in a part or plainly (PS3.18 section 10.4.4)."""
    for wanted in accepted(request):
        if wanted.covers(OCTET_STREAM):
            plain = wanted.type == OCTET_STREAM or (not wanted.is_multipart and "range" in request.headers)
            return Representation(OCTET_STREAM, multipart=not plain)
    raise not_acceptable(f'multipart/related; type="{OCTET_STREAM}" or {OCTET_STREAM}')


def not_acceptable(available: str) -> HTTPException:
    """406 that says what can be had."""
    return HTTPException(406, f"none of the accepted media types is available; available: {available}")


Possible = tuple[str, str, bool]
"""Media type, transfer syntax, and whether it is what is stored, in its own media type."""


def _best(ranges: Sequence[MediaRange], possible: Iterable[Possible]) -> list[tuple[Possible, MediaRange]]:
    """What is accepted, best first, with the range that accepts it: for each the most specific one that covers it."""
    found = []
    for preference, one in enumerate(possible):
        covering = [(item.specificity, -place, item) for place, item in enumerate(ranges) if _covers(item, one)]
        if covering:
            _, place, wanted = max(covering, key=lambda entry: entry[:2])
            if wanted.q > 0:
                found.append(((-wanted.q, -place, preference), one, wanted))
    return [(one, wanted) for _, one, wanted in sorted(found, key=lambda entry: entry[0])]


def _covers(wanted: MediaRange, possible: Possible) -> bool:
    """Without a transfer syntax, or with any, a range means what is stored, or its media type's default; compressed
    frames are octets only for who asks for octets and any transfer syntax."""
    media_type, uid, as_stored = possible
    named = wanted.transfer_syntax
    if not wanted.covers(media_type):
        return False
    if named not in (None, "*"):
        return named == uid
    if media_type == OCTET_STREAM and is_encapsulated(uid) and not as_stored:
        return named == "*" and wanted.payload == OCTET_STREAM
    return as_stored or media_type == OCTET_STREAM or uid == default_transfer_syntax(media_type)


def _may_be_parts(wanted: MediaRange) -> bool:
    return wanted.is_multipart or wanted.type in ("*/*", "*")

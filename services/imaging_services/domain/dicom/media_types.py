"""Media types as DICOMweb negotiates them (PS3.18 sections 8.3.3 and 8.7; RFC 9110 section 12.5.1)."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from imaging_services.domain.errors import InvalidInput

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
DICOM_XML = "application/dicom+xml"
JSON = "application/json"
OCTET_STREAM = "application/octet-stream"
MULTIPART = "multipart/related"

# Bulk data media type of each compressed transfer syntax, PS3.18 tables 8.7.3-2 to 8.7.3-5.
_COMPRESSED = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.92": "image/jpx",
    "1.2.840.10008.1.2.4.93": "image/jpx",
    "1.2.840.10008.1.2.4.100": "video/mpeg2",
    "1.2.840.10008.1.2.4.101": "video/mpeg2",
    "1.2.840.10008.1.2.4.102": "video/mp4",
    "1.2.840.10008.1.2.4.103": "video/mp4",
    "1.2.840.10008.1.2.4.104": "video/mp4",
    "1.2.840.10008.1.2.4.105": "video/mp4",
    "1.2.840.10008.1.2.4.106": "video/mp4",
    "1.2.840.10008.1.2.4.107": "video/H265",
    "1.2.840.10008.1.2.4.108": "video/H265",
    "1.2.840.10008.1.2.4.110": "image/jxl",
    "1.2.840.10008.1.2.4.111": "image/jxl",
    "1.2.840.10008.1.2.4.112": "image/jxl",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}


_DEFAULTS = {
    "image/jpeg": "1.2.840.10008.1.2.4.70",
    "image/dicom-rle": "1.2.840.10008.1.2.5",
    "image/jls": "1.2.840.10008.1.2.4.80",
    "image/jp2": "1.2.840.10008.1.2.4.90",
    "image/jpx": "1.2.840.10008.1.2.4.92",
    "image/jphc": "1.2.840.10008.1.2.4.201",
    "image/jxl": "1.2.840.10008.1.2.4.110",
}
_FORMER_NAMES = {"image/x-dicom-rle": "image/dicom-rle", "image/x-jls": "image/jls", "image/jph": "image/jphc"}


def default_transfer_syntax(media_type: str) -> str | None:
    """What a bulk data media type means without a ``transfer-syntax`` parameter (PS3.18 table 8.7.3-4)."""
    return _DEFAULTS.get(media_type)


def pixel_media_type(transfer_syntax_uid: str) -> str:
    """The media type of a frame as stored; octet-stream for native and for unknown compressions."""
    return _COMPRESSED.get(transfer_syntax_uid, OCTET_STREAM)


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One entry of an Accept header: type and parameter names in lower case, ``q`` from 0 to 1."""

    type: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    q: float = 1.0

    @property
    def is_multipart(self) -> bool:
        """True for ``multipart/related`` and ``multipart/*``."""
        return self.type in (MULTIPART, "multipart/*")

    @property
    def payload(self) -> str:
        """The type of the parts of a multipart range, of any other range its own type."""
        return self.parameters.get("type", "*/*").lower() if self.is_multipart else self.type

    @property
    def transfer_syntax(self) -> str | None:
        """The ``transfer-syntax`` parameter; ``*`` is any."""
        return self.parameters.get("transfer-syntax")

    @property
    def specificity(self) -> tuple[bool, int]:
        """How much it says: of several that cover a type the most specific counts (RFC 9110 section 12.5.1)."""
        wild = "*" in self.payload
        stars = 2 if self.payload in ("*", "*/*") else int(wild)
        return self.transfer_syntax not in (None, "*"), -stars

    def covers(self, media_type: str) -> bool:
        """True when the payload type equals ``media_type`` or is a wild card that includes it."""
        payload = _FORMER_NAMES.get(self.payload, self.payload)
        return payload in (media_type, "*/*", "*", media_type.split("/")[0] + "/*")


def parse_media_type(text: str) -> MediaRange:
    """Read ``type/subtype; name=value; name="value"``. Raises ``InvalidInput``."""
    head, *rest = _split(text, ";")
    if head.count("/") != 1 and head.strip() != "*":
        raise InvalidInput(f"not a media type: {text.strip()[:100]!r}")
    parameters = {}
    for item in rest:
        name, found, value = item.partition("=")
        if found:
            parameters[name.strip().lower()] = _unquote(value.strip())
    try:
        quality = float(parameters.pop("q", "1"))
    except ValueError:
        raise InvalidInput(f"the weight q of a media type is not a number: {text.strip()[:100]!r}") from None
    return MediaRange(head.strip().lower(), parameters, min(max(quality, 0.0), 1.0))


def parse_accept(header: str | None) -> list[MediaRange]:
    """The ranges of an Accept header, most wanted first; without a header anything is wanted."""
    return sorted((item for item in parse_ranges(header) if item.q > 0), key=lambda item: -item.q)


def parse_ranges(header: str | None) -> list[MediaRange]:
    """The ranges of an Accept header as they stand, also those that exclude: ``q=0``."""
    return [parse_media_type(item) for item in _split(header or "*/*", ",") if item.strip()]


def _unquote(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1].replace('\\"', '"')
    return value


def _split(text: str, separator: str) -> list[str]:
    """Split, but not within double quotes."""
    items, quoted, start = [], False, 0
    for index, char in enumerate(text):
        if char == '"':
            quoted = not quoted
        elif char == separator and not quoted:
            items.append(text[start:index])
            start = index + 1
    return [*items, text[start:]]

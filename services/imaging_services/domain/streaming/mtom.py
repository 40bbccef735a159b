"""SOAP messages on HTTP: as plain ``text/xml``, or as MTOM with the binary value in a part of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from imaging_services.domain.dicom.media_types import parse_media_type
from imaging_services.domain.dicom.multipart import MultipartParser, PartStart
from imaging_services.domain.dicom.multipart_writer import MultipartWriter
from imaging_services.domain.errors import InvalidInput

TEXT_XML = "text/xml"
MULTIPART = "multipart/related"

_XOP = "application/xop+xml"
_ROOT = "envelope@header-streaming"
_VALUE = "value@header-streaming"
VALUE_REFERENCE = f'<xop:Include xmlns:xop="http://www.w3.org/2004/08/xop/include" href="cid:{_VALUE}"/>'
"""Stands in the envelope for the binary value."""


@dataclass(frozen=True, slots=True)
class SoapMessage:
    """``parts`` are the binary values by content id; ``mtom`` says in which form it came."""

    envelope: bytes
    parts: Mapping[str, bytes]
    mtom: bool


def read_message(content_type: str, body: bytes) -> SoapMessage:
    """Take a message apart. Raises ``InvalidInput`` for other content types and broken parts."""
    found = parse_media_type(content_type)
    if found.type == TEXT_XML:
        return SoapMessage(body, {}, mtom=False)
    if found.type != MULTIPART:
        raise InvalidInput(f"SOAP 1.1 comes as text/xml or MTOM, not as {found.type[:80]!r}")
    parts = _parts(found.parameters.get("boundary", ""), body)
    start = found.parameters.get("start", "").strip("<>") or next(iter(parts), "")
    if start not in parts:
        raise InvalidInput("the MTOM message has no root part")
    return SoapMessage(parts.pop(start), parts, mtom=True)


def _parts(boundary: str, body: bytes) -> dict[str, bytes]:
    parser = MultipartParser(boundary)
    parts: dict[str, bytearray] = {}
    current = bytearray()
    for event in parser.feed(body):
        if isinstance(event, PartStart):
            current = bytearray()
            parts.setdefault(event.headers.get("content-id", f"part-{len(parts)}").strip(" <>"), current)
        elif isinstance(event, bytes):
            current += event
    parser.close()
    return {name: bytes(content) for name, content in parts.items()}


def referenced(message: SoapMessage, href: str) -> bytes:
    """The part that an ``xop:Include`` names. Raises ``InvalidInput``."""
    name = unquote(href.removeprefix("cid:"))
    try:
        return message.parts[name]
    except KeyError:
        raise InvalidInput(f"the MTOM message lacks the part {name[:80]!r}") from None


def mtom_message(envelope: str, value: bytes) -> tuple[str, bytes]:
    """Content-Type and body of an envelope that has ``VALUE_REFERENCE`` in the value's place."""
    writer = MultipartWriter()
    root = {
        "Content-ID": f"<{_ROOT}>",
        "Content-Transfer-Encoding": "8bit",
        "Content-Type": f'{_XOP};charset=utf-8;type="{TEXT_XML}"',
    }
    binary = {
        "Content-ID": f"<{_VALUE}>",
        "Content-Transfer-Encoding": "binary",
        "Content-Type": "application/octet-stream",
    }
    pieces = [writer.head(root, first=True), envelope.encode(), writer.head(binary, first=False), value, writer.end]
    content_type = (
        f'{MULTIPART}; type="{_XOP}"; start="<{_ROOT}>"; boundary="{writer.boundary}"; start-info="{TEXT_XML}"'
    )
    return content_type, b"".join(pieces)

"""CloudEvents 1.0 context attributes as text, and back; what every binding (HTTP, NATS, JSON) shares."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote, unquote

import orjson

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.events.envelope import CloudEvent

SPEC_VERSION = "1.0"
JSON_TYPE = "application/json"
_REQUIRED = ("id", "source", "type")
_ENVELOPE = frozenset({"specversion", "id", "source", "type", "time", "datacontenttype"})
_NAME = re.compile(r"[a-z0-9]{1,64}")
_JSON_CONTENT = re.compile(r"[^/;]+/(json|[^;]+\+json)\s*(;.*)?", re.IGNORECASE)

# HTTP protocol binding 3.1.3.2: space, double quote, percent and all outside U+0021..U+007E are percent-encoded.
_PLAIN = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')


def to_attributes(event: CloudEvent) -> dict[str, str]:
    """Every context attribute of the event by its name; ``time`` in RFC 3339."""
    return {
        **event.extensions,
        "specversion": SPEC_VERSION,
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "time": event.time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": JSON_TYPE,
    }


def from_attributes(attributes: Mapping[str, str], data: bytes, *, parsed_later: bool = False) -> CloudEvent:
    """The event of these attributes and this JSON document.

    Attributes that this product has no field for (``subject``, ``dataschema``, extensions) go to ``extensions``.
    ``parsed_later``: whoever takes the event finds out whether the document is JSON, which costs as much as recording
    it. Raises ``InvalidInput`` that names what is missing or wrong.
    """
    if attributes.get("specversion") != SPEC_VERSION:
        found = attributes.get("specversion")
        raise InvalidInput(f"not a CloudEvent 1.0: specversion is {found!r}, expected {SPEC_VERSION!r}")
    if missing := [name for name in _REQUIRED if not attributes.get(name)]:
        raise InvalidInput(f"the CloudEvent has no {' and no '.join(missing)}")
    extensions = {name: value for name, value in attributes.items() if name not in _ENVELOPE}
    if bad := [name for name in extensions if not _NAME.fullmatch(name)]:
        raise InvalidInput(f"CloudEvent attribute {bad[0][:80]!r} is not named by lower-case letters and digits only")
    _require_json(attributes.get("datacontenttype"), data, parsed_later)
    return CloudEvent(
        type=attributes["type"],
        source=attributes["source"],
        id=attributes["id"],
        data=data,
        time=_time(attributes.get("time")),
        extensions=extensions,
    )


def encode_value(value: str) -> str:
    """An attribute value as a header value (HTTP protocol binding 3.1.3.2)."""
    return quote(value, safe=_PLAIN)


def decode_value(value: str) -> str:
    """The attribute value of a header value; a quoted string is unwrapped first."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    return unquote(value)


def _require_json(content_type: str | None, data: bytes, parsed_later: bool) -> None:
    if content_type and not _JSON_CONTENT.fullmatch(content_type.strip()):
        raise InvalidInput(f"the CloudEvent's data is {content_type[:80]}, expected {JSON_TYPE}")
    if not data:
        raise InvalidInput("the CloudEvent has no data")
    if parsed_later:
        return
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the CloudEvent's data is not JSON: {error}") from None


def _time(text: str | None) -> datetime:
    if not text:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"the CloudEvent's time {text[:80]!r} is not an RFC 3339 time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

"""CloudEvents HTTP protocol binding 1.0: binary, structured and batched content mode, as pure functions."""

from collections.abc import Mapping, Sequence

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.events.attributes import (
    decode_value,
    encode_value,
    from_attributes,
    to_attributes,
)
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.events.json_format import decode_batch, decode_event, encode_batch, encode_event

STRUCTURED_TYPE = "application/cloudevents+json"
BATCH_TYPE = "application/cloudevents-batch+json"
_PREFIX = "ce-"


def decode_http(headers: Mapping[str, str], body: bytes) -> list[CloudEvent]:
    """The events of a request; names of headers in any case. Binary and structured mode give one event.

    Raises ``InvalidInput`` with a sentence for the sender.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    media_type = lowered.get("content-type", "").split(";", 1)[0].strip().lower()
    if media_type.startswith("application/cloudevents-batch"):
        _require_json_format(media_type, BATCH_TYPE)
        return decode_batch(body)
    if media_type.startswith("application/cloudevents"):
        _require_json_format(media_type, STRUCTURED_TYPE)
        return [decode_event(body)]
    return [_decode_binary(lowered, body)]


def encode_http(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Headers and body of a request in binary mode."""
    attributes = to_attributes(event)
    content_type = attributes.pop("datacontenttype")
    headers = {_PREFIX + name: encode_value(value) for name, value in attributes.items()}
    return {**headers, "content-type": content_type}, event.data


def encode_http_structured(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Headers and body of a request in structured mode."""
    return {"content-type": STRUCTURED_TYPE}, encode_event(event)


def encode_http_batch(events: Sequence[CloudEvent]) -> tuple[dict[str, str], bytes]:
    """Headers and body of a request in batched mode."""
    return {"content-type": BATCH_TYPE}, encode_batch(events)


def _decode_binary(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    attributes = {
        name.removeprefix(_PREFIX): decode_value(value) for name, value in headers.items() if name.startswith(_PREFIX)
    }
    if not attributes:
        raise InvalidInput("not a CloudEvent: neither ce- headers nor a content type of CloudEvents")
    if content_type := headers.get("content-type"):
        attributes["datacontenttype"] = content_type
    return from_attributes(attributes, body)


def _require_json_format(media_type: str, expected: str) -> None:
    if media_type != expected:
        raise InvalidInput(f"CloudEvents in {media_type[:80]} are not understood, expected {expected}")

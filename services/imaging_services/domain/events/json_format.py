"""CloudEvents JSON event format 1.0: one event as a JSON object, several as an array."""

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import orjson

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.events.attributes import from_attributes, to_attributes
from imaging_services.domain.events.envelope import CloudEvent


def encode_event(event: CloudEvent) -> bytes:
    """The event as ``application/cloudevents+json``."""
    return orjson.dumps(_to_object(event))


def encode_batch(events: Sequence[CloudEvent]) -> bytes:
    """The events as ``application/cloudevents-batch+json``."""
    return orjson.dumps([_to_object(event) for event in events])


def decode_event(document: bytes) -> CloudEvent:
    """The event of a JSON document. Raises ``InvalidInput``."""
    return _from_object(_loads(document))


def decode_batch(document: bytes) -> list[CloudEvent]:
    """The events of a JSON array. Raises ``InvalidInput``; all are good or none is returned."""
    events = _loads(document)
    if not isinstance(events, list):
        raise InvalidInput("a batch of CloudEvents is a JSON array")
    return [_from_object(event) for event in events]


def _loads(document: bytes) -> Any:
    try:
        return orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"the CloudEvent is not JSON: {error}") from None


def _to_object(event: CloudEvent) -> dict[str, Any]:
    return {**to_attributes(event), "data": orjson.Fragment(event.data)}


def _from_object(document: Any) -> CloudEvent:
    if not isinstance(document, dict):
        raise InvalidInput("a CloudEvent in structured mode is a JSON object")
    members = dict(document)
    data = _data(members)
    return from_attributes({name: _text(name, value) for name, value in members.items() if value is not None}, data)


def _data(members: dict[str, Any]) -> bytes:
    """Take ``data`` or ``data_base64`` (JSON event format 3.1.1) out of the members."""
    encoded = members.pop("data_base64", None)
    if "data" in members:
        try:
            return orjson.dumps(members.pop("data"))
        except orjson.JSONEncodeError:  # it reads deeper than it writes
            raise InvalidInput("the CloudEvent's data is nested too deeply") from None
    if encoded is None:
        return b""
    try:
        return base64.b64decode(str(encoded), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("the CloudEvent's data_base64 is not base64") from None


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise InvalidInput(f"CloudEvent attribute {name[:80]!r} is neither text, number nor boolean")

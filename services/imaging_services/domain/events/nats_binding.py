"""CloudEvents NATS protocol binding: attributes in ``ce-`` headers, or the whole event as JSON; pure functions.

Data above ``COMPRESS_ABOVE`` bytes travels with ``Content-Encoding: gzip``: a revision event names every instance of
its study, UIDs compress tenfold, and a NATS server refuses messages above its ``max_payload`` (1 MiB unless set).
"""

import gzip
import zlib
from collections.abc import Mapping

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.events.attributes import decode_value, encode_value, from_attributes, to_attributes
from imaging_services.domain.events.envelope import STUDY_REVISION, CloudEvent
from imaging_services.domain.events.json_format import decode_event, encode_event

COMPRESS_ABOVE = 256 * 1024
MAX_DATA = 64 * 1024 * 1024
_PREFIX = "ce-"
_ENCODING = "content-encoding"


def encode_nats(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Headers and payload of a message in binary mode."""
    headers = {_PREFIX + name: encode_value(value) for name, value in to_attributes(event).items()}
    return _fitting(headers, event.data)


def encode_nats_structured(event: CloudEvent) -> tuple[dict[str, str], bytes]:
    """Headers and payload of a message in structured mode."""
    return _fitting({"Content-Type": "application/cloudevents+json"}, encode_event(event))


def deduplication_id(event: CloudEvent) -> str:
    """What a stream recognises the same event by (``Nats-Msg-Id``).

    Our ids name facts, and a fact is the same whoever tells of it: an instance announced at the edge and, after the
    bridge, again at the hub is kept once. A study's revision is what one processor says of the study, so its source
    belongs to its identity, as CloudEvents has it.
    """
    return f"{event.id}/{encode_value(event.source)}" if event.type == STUDY_REVISION else event.id


def decode_nats(headers: Mapping[str, str] | None, payload: bytes, *, parsed_later: bool = False) -> CloudEvent:
    """The event of a message in binary or structured mode; ``parsed_later``: the document of one in binary mode is not
    looked at yet. Raises ``InvalidInput``."""
    lowered = {name.lower(): value for name, value in (headers or {}).items()}
    if lowered.get("content-type", "").lower().startswith("application/cloudevents"):
        return decode_event(_expand(lowered.get(_ENCODING), payload))
    attributes = {
        name.removeprefix(_PREFIX): decode_value(value) for name, value in lowered.items() if name.startswith(_PREFIX)
    }
    if not attributes:
        raise InvalidInput("not a CloudEvent: the message has no ce- headers")
    return from_attributes(attributes, _expand(lowered.get(_ENCODING), payload), parsed_later=parsed_later)


def _fitting(headers: dict[str, str], payload: bytes) -> tuple[dict[str, str], bytes]:
    if len(payload) <= COMPRESS_ABOVE:
        return headers, payload
    return {**headers, "Content-Encoding": "gzip"}, gzip.compress(payload, compresslevel=1)


def _expand(encoding: str | None, payload: bytes) -> bytes:
    if encoding is None:
        return payload
    if encoding.lower() != "gzip":
        raise InvalidInput(f"the CloudEvent's data is encoded with {encoding[:40]!r}, expected gzip")
    decoder = zlib.decompressobj(wbits=31)
    try:
        data = decoder.decompress(payload, MAX_DATA)
    except zlib.error as error:
        raise InvalidInput(f"the CloudEvent's data cannot be decompressed: {error}") from None
    if not decoder.eof:
        raise InvalidInput(f"the CloudEvent's data is cut off or longer than {MAX_DATA} bytes")
    return data

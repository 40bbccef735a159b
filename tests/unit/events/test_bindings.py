"""CloudEvents over HTTP and NATS: whatever is encoded comes back; whatever is wrong is named."""

import base64
import gzip
from collections.abc import Callable
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.events.envelope import DICOM_AVAILABLE, STUDY_REVISION, CloudEvent
from imaging_services.domain.events.http_binding import (
    decode_http,
    encode_http,
    encode_http_batch,
    encode_http_structured,
)
from imaging_services.domain.events.nats_binding import (
    MAX_DATA,
    decode_nats,
    deduplication_id,
    encode_nats,
    encode_nats_structured,
)

_TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)
_NAME = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True).filter(
    lambda name: name not in {"specversion", "id", "source", "type", "time", "datacontenttype", "data"}
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
)
_EVENT = st.builds(
    CloudEvent,
    type=_TEXT,
    source=_TEXT,
    id=_TEXT,
    data=_JSON.map(orjson.dumps),
    time=st.datetimes(min_value=datetime(1990, 1, 1), timezones=st.just(UTC)),
    extensions=st.dictionaries(_NAME, _TEXT, max_size=3),
)
_GOOD = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s", "ce-type": DICOM_AVAILABLE}


@given(_EVENT)
def test_http_modes_give_the_event_back(event: CloudEvent) -> None:
    for encode in (encode_http, encode_http_structured):
        assert decode_http(*encode(event)) == [event]
    assert decode_http(*encode_http_batch([event, event])) == [event, event]


@given(_EVENT)
def test_nats_modes_give_the_event_back(event: CloudEvent) -> None:
    for encode in (encode_nats, encode_nats_structured):
        headers, payload = encode(event)
        assert all(value.isascii() and value == value.strip() for value in headers.values())
        assert decode_nats(headers, payload) == event


def test_an_event_of_the_reference_system_is_understood() -> None:
    headers = {
        "Ce-Specversion": "1.0",
        "Ce-Id": "0b9c",
        "Ce-Source": "space1-stow.imaging.svc.cluster.local",
        "Ce-Type": "DicomAvailableEvent",
        "Content-Type": "application/json; charset=utf-8",
    }
    (event,) = decode_http(headers, b'{"provider":"north","endpoint":"http://north"}')
    assert (event.type, event.source, event.id) == (DICOM_AVAILABLE, "space1-stow.imaging.svc.cluster.local", "0b9c")
    assert event.extensions == {}
    assert abs((datetime.now(UTC) - event.time).total_seconds()) < 5


def test_base64_and_typed_attributes_of_structured_mode() -> None:
    document = {
        "specversion": "1.0",
        "id": "1",
        "source": "s",
        "type": "t",
        "sequence": 7,
        "urgent": True,
        "subject": None,
        "data_base64": base64.b64encode(b'{"a":1}').decode(),
    }
    (event,) = decode_http({"content-type": "application/cloudevents+json"}, orjson.dumps(document))
    assert event.data == b'{"a":1}'
    assert event.extensions == {"sequence": "7", "urgent": "true"}


def test_long_data_travels_compressed() -> None:
    event = CloudEvent(type=STUDY_REVISION, source="s", id="1", data=orjson.dumps(["1.2.840"] * 100_000))
    for encode in (encode_nats, encode_nats_structured):
        headers, payload = encode(event)
        assert headers["Content-Encoding"] == "gzip"
        assert len(payload) < len(event.data) / 50
        assert decode_nats(headers, payload) == event


_BAD_HTTP: list[tuple[dict[str, str], bytes, str]] = [
    ({}, b"{}", "not a CloudEvent"),
    ({"content-type": "application/json"}, b"{}", "not a CloudEvent"),
    ({**_GOOD, "ce-specversion": "0.3"}, b"{}", "specversion is '0.3'"),
    ({**_GOOD, "ce-id": ""}, b"{}", "no id"),
    ({**_GOOD, "ce-type": ""}, b"{}", "no type"),
    ({**_GOOD, "ce-time": "yesterday"}, b"{}", "time 'yesterday'"),
    ({**_GOOD, "ce-bad_name": "x"}, b"{}", "bad_name"),
    ({**_GOOD, "content-type": "image/png"}, b"{}", "image/png"),
    (_GOOD, b"", "no data"),
    (_GOOD, b'{"cut', "not JSON"),
    ({"content-type": "application/cloudevents+json"}, b"{", "not JSON"),
    ({"content-type": "application/cloudevents+json"}, b"[]", "JSON object"),
    ({"content-type": "application/cloudevents+json"}, b'{"specversion":"1.0","id":["x"]}', "'id' is neither"),
    (
        {"content-type": "application/cloudevents+json"},
        b'{"specversion":"1.0","id":"1","source":"s","type":"t","data_base64":"%"}',
        "not base64",
    ),
    ({"content-type": "application/cloudevents+avro"}, b"", "avro are not understood"),
    ({"content-type": "application/cloudevents-batch+json"}, b"{}", "JSON array"),
]


@pytest.mark.parametrize(("headers", "body", "sentence"), _BAD_HTTP)
def test_a_wrong_request_is_named(headers: dict[str, str], body: bytes, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        decode_http(headers, body)


@pytest.mark.parametrize(
    ("headers", "payload", "sentence"),
    [
        (None, b"{}", "no ce- headers"),
        ({**_GOOD, "Content-Encoding": "br"}, b"{}", "encoded with 'br'"),
        ({**_GOOD, "Content-Encoding": "gzip"}, b"{}", "cannot be decompressed"),
        ({**_GOOD, "Content-Encoding": "gzip"}, gzip.compress(b"{}", mtime=0)[:-6], "cut off"),
        ({**_GOOD, "Content-Encoding": "gzip"}, gzip.compress(bytes(MAX_DATA + 1), mtime=0), "longer than"),
    ],
)
def test_a_wrong_message_is_named(headers: dict[str, str] | None, payload: bytes, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        decode_nats(headers, payload)


def test_a_document_may_be_left_to_who_reads_it() -> None:
    headers, _ = encode_nats(CloudEvent(DICOM_AVAILABLE, "s", "i", b"{}"))
    assert decode_nats(headers, b"{", parsed_later=True).data == b"{"
    with pytest.raises(InvalidInput, match="no data"):
        decode_nats(headers, b"", parsed_later=True)


@pytest.mark.parametrize(("event_type", "same"), [(DICOM_AVAILABLE, True), (STUDY_REVISION, False)])
def test_a_fact_is_the_same_from_any_source_and_a_revision_is_its_processors_own(event_type: str, same: bool) -> None:
    make: Callable[[str], CloudEvent] = lambda source: CloudEvent(event_type, source, "1", b"{}")  # noqa: E731
    assert (deduplication_id(make("edge")) == deduplication_id(make("hub"))) is same

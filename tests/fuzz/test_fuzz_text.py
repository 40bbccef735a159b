"""Multipart bodies, CloudEvents, headers and query parameters from strangers: understood or refused with 400."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging_services.apps.dicomweb_ingestion.compression import choose_coding, is_document
from imaging_services.apps.dicomweb_ingestion.frames import frame_numbers
from imaging_services.apps.dicomweb_ingestion.search_parameters import parse_search
from imaging_services.domain.dicom.bulkdata import parse_path
from imaging_services.domain.dicom.media_types import parse_accept, parse_media_type
from imaging_services.domain.dicom.multipart import MultipartParser, PartStart
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.events.http_binding import BATCH_TYPE, STRUCTURED_TYPE, decode_http
from imaging_services.domain.events.nats_binding import decode_nats
from imaging_services.domain.manifest.attributes import ATTRIBUTES
from imaging_services.domain.manifest.matching import parse_filters
from imaging_services.domain.manifest.query import Level
from support.fuzzing import fuzzed, noise, pieces

BODIES = (
    b"--b\r\nContent-Type: application/dicom\r\n\r\nabc\r\n--b\r\nA: 1\r\n  folded\r\n\r\n\r\n--b--\r\nend",
    b"preamble\r\n--b\n\n--b--",
)
EVENT = {
    "specversion": "1.0",
    "id": "1",
    "source": "/here",
    "type": "ImageStoredEvent",
    "time": "2026-11-21T03:30:00Z",
    "datacontenttype": "application/json",
    "data": {"a": [1, {"b": None}]},
}
STRUCTURED = (json.dumps(EVENT).encode(), json.dumps([EVENT, EVENT]).encode())
TEXT = st.text(max_size=40) | st.text("0123456789-+.:*?\\,^= ", max_size=30)
ACCEPTED = st.lists(
    st.sampled_from(
        [
            "multipart/related",
            ";",
            ",",
            "type=",
            '"application/dicom"',
            "q=0.5",
            "transfer-syntax=*",
            "*/*",
            '"',
            "=",
            "q=nan",
        ]
    )
    | st.text(max_size=8),
    max_size=12,
).map("".join)


@fuzzed(80)
@given(noise(BODIES, [b"--b", b"\r\n", b"--b--", b"\r\n\r\n", b":"]), st.data())
def test_multipart_bodies(body: bytes, data: st.DataObject) -> None:
    parser, starts = MultipartParser("b"), 0
    with contextlib.suppress(InvalidInput):
        for piece in data.draw(pieces(body)):
            starts += sum(isinstance(event, PartStart) for event in parser.feed(piece))
        parser.close()
    assert starts <= body.count(b"--b")


@fuzzed(80)
@given(
    noise(STRUCTURED, [b"null", b"{}", b"[]", b'"', b"1e999", b"\\ud800"]),
    st.sampled_from([STRUCTURED_TYPE, BATCH_TYPE]),
)
def test_structured_events(body: bytes, content_type: str) -> None:
    with contextlib.suppress(InvalidInput):
        decode_http({"content-type": content_type}, body)
    with contextlib.suppress(InvalidInput):
        decode_nats({"content-type": content_type}, body)


@fuzzed(60)
@given(
    st.dictionaries(
        st.sampled_from(
            ["ce-id", "ce-source", "ce-type", "ce-specversion", "ce-time", "content-type", "ce-X", "content-encoding"]
        ),
        TEXT | st.sampled_from(["1.0", "application/json", "gzip", "2026-11-21T03:30:00Z", "%ff%", '"a\\']),
    ),
    noise([b'{"a": 1}']),
)
def test_binary_events(headers: dict[str, str], body: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        decode_http(headers, body)
    with contextlib.suppress(InvalidInput):
        decode_nats(headers, body)


@pytest.mark.parametrize("depth", [200, 300, 900, 5000])
@pytest.mark.parametrize("content_type", [STRUCTURED_TYPE, BATCH_TYPE])
def test_deeply_nested_events_are_refused_or_kept(depth: int, content_type: str) -> None:
    body = json.dumps({**EVENT, "data": 0}).replace('"data": 0', '"data": ' + "[" * depth + "]" * depth).encode()
    with contextlib.suppress(InvalidInput):
        (event,) = decode_http(
            {"content-type": content_type}, b"[" + body + b"]" if content_type == BATCH_TYPE else body
        )
        assert event.data.count(b"[") == depth


@fuzzed(80)
@given(ACCEPTED)
def test_accept_headers(header: str) -> None:
    with contextlib.suppress(InvalidInput):
        for wanted in parse_accept(header):
            assert 0 < wanted.q <= 1
    with contextlib.suppress(InvalidInput):
        parse_media_type(header)
    assert choose_coding(header) in (None, "gzip", "zstd")
    is_document(header)


@fuzzed(100)
@given(
    st.sampled_from([Level.STUDY, Level.SERIES, Level.IMAGE]),
    st.lists(
        st.tuples(
            st.sampled_from(sorted(row.keyword for row in ATTRIBUTES.values()))
            | st.sampled_from(["limit", "offset", "includefield", "fuzzymatching", "emptyvaluematching"])
            | TEXT,
            TEXT,
        ),
        max_size=4,
    ),
)
def test_searches(level: Level, parameters: list[tuple[str, str]]) -> None:
    with contextlib.suppress(InvalidInput):
        search = parse_search(level, "north", {}, parameters, default_limit=10, max_limit=100)
        assert 0 <= search.limit <= 100
        parse_filters(search.query)


@fuzzed(60)
@given(TEXT | st.text("0123456789abcdefABCDEF_+-/,", max_size=40))
def test_paths(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        assert min(frame_numbers(text)) > 0
    with contextlib.suppress(InvalidInput):
        assert all(0 <= part <= 0xFFFFFFFF for part in parse_path(text)[::2])

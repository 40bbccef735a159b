"""What producers post to the event processor, and what services ask of it: handled, or refused by name."""

import contextlib
import json
from typing import Any

import httpx
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from imaging_services.adapters.http.cloudevents import event_router
from imaging_services.adapters.memory.manifest import MemoryManifest
from imaging_services.apps.event_driven_ingestion.routes import query_router
from imaging_services.domain.events.envelope import EVENT_TYPES, CloudEvent
from imaging_services.domain.events.http_binding import encode_http, encode_http_batch, encode_http_structured
from support.fuzzing import fuzzed, noise
from support.manifest_events import stored

EVENT = stored("1.2", "1.2.3", "1.2.3.4", attributes={"00100010": "Doe^Jane", "00080020": "20261121"})
WORDS = (b"null", b"{}", b"[]", b'""', b"-1", b"1e999", b"true", b'"\\u0000"', b"99999999999999999999", b'"a"')
ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["1.2", "SQ", "\0"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["value", "items", "vr"]), inner),
    max_leaves=4,
)
QUERIES = [
    b'{"level": "STUDY", "provider": "north", "filters": {"00100010": ["Doe*"]}, "limit": 10, "offset": 0}',
    b'{"level": "IMAGE", "provider": "north", "filters": {"00080020": ["20260101-"]}, "include": ["00280010"]}',
    b'{"study_instance_uid": "1.2", "series_instance_uid": null, "provider": "north"}',
    b'{"provider": "north", "limit": 3, "objects": [], "lease_seconds": 3, "study_instance_uid": "1.2"}',
]


def changed(document: Any, path: list[int], value: Any) -> Any:
    """The document with one member replaced, found by going down the path."""
    if not path or not isinstance(document, dict | list) or not document:
        return value
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    key = keys[path[0] % len(keys)]
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[key] = changed(document[key], path[1:], value)
    return copy


@fuzzed(60)
@given(
    noise([EVENT.data], WORDS)
    | st.builds(changed, st.just(json.loads(EVENT.data)), st.lists(st.integers(0, 20), max_size=5), ODD).map(
        lambda document: json.dumps(document).encode()
    ),
    st.sampled_from(sorted(EVENT_TYPES)),
)
async def test_recording_takes_an_event_or_says_why_not(data: bytes, event_type: str) -> None:
    manifest = MemoryManifest("test")
    results = await manifest.record([CloudEvent(event_type, "here", "1", data), EVENT])
    assert results[1] is None  # the good one is not hurt by the other


@fuzzed(40)
@given(st.data())
async def test_posted_events_get_an_answer_that_says_whether_to_try_again(data: st.DataObject) -> None:
    manifest = MemoryManifest("test")

    async def handle(event: CloudEvent) -> None:
        (refused,) = await manifest.record([event])
        if refused is not None:
            raise refused

    app = FastAPI()
    app.include_router(event_router(handle))
    encoded = data.draw(
        st.sampled_from([encode_http(EVENT), encode_http_structured(EVENT), encode_http_batch([EVENT, EVENT])])
    )
    headers = dict(encoded[0])
    if data.draw(st.booleans()):
        headers.pop(data.draw(st.sampled_from(sorted(headers))))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        answer = await client.post("/", headers=headers, content=data.draw(noise([encoded[1]], WORDS)))
    assert answer.status_code in (204, 400, 409, 422)


@fuzzed(40)
@given(noise(QUERIES, WORDS), st.sampled_from(["search", "locate", "deleted-objects", "deleted-objects/removed"]))
async def test_queries_are_answered_or_refused(body: bytes, path: str) -> None:
    manifest = MemoryManifest("test")
    await manifest.record([EVENT])
    app = FastAPI()
    app.include_router(query_router(manifest))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        answer = await client.post(f"/query/{path}", content=body)
        held = await client.put("/query/associations/1.2/3", content=body)
    assert answer.status_code in (200, 204, 400, 409)
    assert held.status_code in (204, 400)
    with contextlib.suppress(ValueError):
        answer.json()

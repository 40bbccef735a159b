"""The audit of what became of what was acknowledged to senders (``support.insisting``)."""

import asyncio
import gzip
import hashlib
import io
import itertools
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import boto3
import httpx
import nats
import psycopg
import pydicom
from nats.js.api import AckPolicy, ConsumerConfig

from support.dicom_files import data_set_of
from support.insisting import Identity, identity
from support.insisting import Modality as Modality
from support.insisting import StowClient as StowClient
from support.insisting import of_size as of_size
from support.insisting import streaming as streaming
from support.multipart import parts
from support.stack import Stack
from support.subscribers import Subscribers

EVENTS = ("ImageStoredEvent", "DicomAvailableEvent")


def until(condition: Callable[[], Any], seconds: float = 90, what: str = "", every: float = 0.05) -> Any:
    """The condition's first true value; asked ``every`` so many seconds."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(every)
    return result


def until_settled(stack: Stack, seconds: float = 90) -> None:
    """Wait until nothing is on its way: the relay's queue, and the events that wait to be published."""
    until(lambda: _waiting(stack) == (0, 0), seconds, "relay and outbox empty", every=0.2)


def _waiting(stack: Stack) -> tuple[int, int] | None:
    try:
        with psycopg.connect(stack.ready["postgres"], connect_timeout=5) as database:
            row = database.execute("SELECT count(*) FROM outbox").fetchone()
        streams = asyncio.run(_streams(stack))
    except (psycopg.OperationalError, nats.errors.Error, OSError):
        return None
    return sum(count for name, count in streams.items() if name.endswith("-store")), row[0] if row else 0


async def _streams(stack: Stack) -> dict[str, int]:
    """Number of messages by stream."""
    client = await nats.connect(stack.ready["nats"], allow_reconnect=False, connect_timeout=5)
    try:
        infos = await client.jetstream().streams_info()
        return {info.config.name: info.state.messages for info in infos}
    finally:
        await client.close()


def audit(
    stack: Stack,
    acknowledged: dict[Identity, bytes],
    subscribers: Subscribers | None = None,
    *,
    retrieved: int = sys.maxsize,
    seconds: float = 90,
) -> None:
    """What was acknowledged is in the manifest, can be retrieved (the first ``retrieved`` are) and was announced once;
    the manifest is what the space holds and what the subscribers were told. ``seconds`` is the time to settle."""
    until_settled(stack, seconds)
    rows = manifest_rows(stack)
    assert {one: rows.get(one) for one in acknowledged if one not in rows} == {}
    audit_space(stack, rows, acknowledged)
    asyncio.run(_retrieve(stack, dict(itertools.islice(acknowledged.items(), retrieved))))
    assert dead_letters(stack) == {}
    announced = asyncio.run(events(stack))
    for name in EVENTS:
        assert announced[name].keys() == rows.keys(), name
        times = {one: announced[name][one] for one in acknowledged if announced[name][one] != 1}
        assert times == {}, name
    if subscribers is not None:
        audit_subscribers(subscribers, set(rows), acknowledged, seconds + 20)


def audit_space(stack: Stack, rows: dict[Identity, str], acknowledged: dict[Identity, bytes]) -> None:
    """Every object is an instance's, of its own, or a version that was replaced; any other belongs to what was never
    acknowledged: its sender was cut off between object and event."""
    kept = objects(stack)
    assert set(rows.values()) - kept == set()
    _assert_digests(stack, {rows[one]: content for one, content in acknowledged.items()})
    assert Counter(rows.values()).most_common(1)[0][1] == 1
    left = kept - set(rows.values()) - replaced_objects(stack)
    assert {identity(_object(stack, key)) for key in left} & acknowledged.keys() == set()


def _assert_digests(stack: Stack, sent: dict[str, bytes]) -> None:
    """Each object's name is the SHA-256 of its bytes, and its data set is what was sent."""
    with _space(stack) as (client, bucket), ThreadPoolExecutor(4) as threads:

        def check(key: str) -> None:
            body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
            assert hashlib.sha256(body).hexdigest() == re.split(r"[-.]", key)[0], key
            _assert_same(data_set_of(body), sent[key], key)

        list(threads.map(check, sent))


def audit_subscribers(
    subscribers: Subscribers, recorded: set[Identity], acknowledged: dict[Identity, bytes], seconds: float = 60
) -> None:
    """Each was told of every recorded instance, of nothing else, and of none as two."""
    told = {
        "instance binding": lambda: set(subscribers.announced()),
        "study binding": subscribers.revised,
        "FHIR": subscribers.imaging_studies,
    }
    deadline = time.monotonic() + seconds
    for name, heard in told.items():
        while (difference := heard() ^ recorded) and time.monotonic() < deadline:
            time.sleep(0.3)
        assert difference == set(), name
    ids = subscribers.announced()
    assert {one: ids[one] for one in acknowledged if len(ids[one]) != 1} == {}
    added = subscribers.times_added()
    assert {one: added[one] for one in recorded if added[one] != 1} == {}


def manifest_rows(stack: Stack) -> dict[Identity, str]:
    """The object of each instance."""
    with psycopg.connect(stack.ready["postgres"], connect_timeout=5) as database:
        rows = database.execute(
            "SELECT st.study_instance_uid, se.series_instance_uid, i.sop_instance_uid, i.objectname FROM dicom_instance"
            " i JOIN dicom_series se ON se.id = i.series_id JOIN dicom_study st ON st.id = se.study_id"
        ).fetchall()
    assert len({row[:3] for row in rows}) == len(rows)
    return {(study, series, sop): name for study, series, sop, name in rows}


def replaced_objects(stack: Stack) -> set[str]:
    """The objects of earlier versions."""
    with psycopg.connect(stack.ready["postgres"], connect_timeout=5) as database:
        return {name for (name,) in database.execute("SELECT objectname FROM replaced_object").fetchall()}


@contextmanager
def _space(stack: Stack) -> Iterator[tuple[Any, str]]:
    """A client of the storage space, and the bucket."""
    s3 = stack.ready["s3"]
    client = boto3.client(
        "s3",
        endpoint_url=s3["endpoint"],
        region_name=s3["region"],
        aws_access_key_id=s3["access_key_id"],
        aws_secret_access_key=s3["secret_access_key"],
    )
    try:
        yield client, s3["bucket"]
    finally:
        client.close()


def objects(stack: Stack) -> set[str]:
    """Every key of the storage space."""
    with _space(stack) as (client, bucket):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {item["Key"] for page in pages for item in page.get("Contents", [])}


def _object(stack: Stack, key: str) -> pydicom.Dataset:
    with _space(stack) as (client, bucket):
        body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    return pydicom.dcmread(io.BytesIO(body), stop_before_pixels=True)


def dead_letters(stack: Stack) -> dict[str, int]:
    """Streams of dead letters that hold some."""
    return {name: count for name, count in asyncio.run(_streams(stack)).items() if "dead" in name and count}


async def _retrieve(stack: Stack, wanted: dict[Identity, bytes]) -> None:
    hands = asyncio.Semaphore(8)
    async with httpx.AsyncClient(timeout=30) as client, asyncio.TaskGroup() as tasks:

        async def check(one: Identity, content: bytes) -> None:
            async with hands:
                _assert_same(await _data_set(client, stack, one), content, one)

        for one, content in wanted.items():
            tasks.create_task(check(one, content))


def _assert_same(found: bytes, sent: bytes, one: object) -> None:
    if found != sent:  # not in the assertion, which would show both
        place = next((at for at, pair in enumerate(zip(found, sent, strict=False)) if pair[0] != pair[1]), None)
        raise AssertionError(f"{one}: {len(found)} bytes of {len(sent)}, the first other one at {place}")


async def _data_set(client: httpx.AsyncClient, stack: Stack, one: Identity) -> bytes:
    study, series, sop = one
    url = f"{stack.url('wado')}/studies/{study}/series/{series}/instances/{sop}"
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    response = await client.get(url, headers={"Accept": accept})
    assert response.status_code == 200, (url, response.text)
    (part,) = parts(response)
    return data_set_of(part.body)


def retrieved(stack: Stack, one: Identity) -> pydicom.Dataset:
    """What WADO-RS gives."""

    async def get() -> bytes:
        async with httpx.AsyncClient(timeout=30) as client:
            return await _data_set(client, stack, one)

    return pydicom.dcmread(io.BytesIO(asyncio.run(get())), force=True)


async def events(stack: Stack) -> dict[str, Counter[Identity]]:
    """How often the event log holds each instance, by event type."""
    found: dict[str, Counter[Identity]] = {name: Counter() for name in EVENTS}
    client = await nats.connect(stack.ready["nats"])
    try:
        js = client.jetstream()
        stream = next(i for i in await js.streams_info() if i.config.name.endswith("-events"))
        name = stream.config.name
        consumer = await js.add_consumer(name, ConsumerConfig(ack_policy=AckPolicy.NONE, inactive_threshold=30))
        reader = await js.pull_subscribe_bind(consumer=consumer.name, stream=name)
        left = stream.state.messages
        while left:
            for message in await reader.fetch(min(left, 200), timeout=10):
                left -= 1
                if ".redrive." in message.subject:  # for one consumer only: what the log has already
                    continue
                headers = message.headers or {}
                kind = headers["ce-type"]
                if kind in found:
                    data = gzip.decompress(message.data) if "Content-Encoding" in headers else message.data
                    found[kind][_identity_of(kind, json.loads(data))] += 1
    finally:
        await client.close()
    return found


def _identity_of(kind: str, data: dict[str, Any]) -> Identity:
    if kind == "DicomAvailableEvent":
        _, study, _, series, _, sop = str(data["endpoint"]).rsplit("/", 5)
        return study, series, sop
    values = {element["group"] + element["element"]: element["value"] for element in data["image"]["elements"]}
    return values["0020000D"], values["0020000E"], values["00080018"]

"""Senders that never give up on an instance, and the audit of what became of what was acknowledged to them."""

import asyncio
import gc
import io
import json
import threading
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
import pynetdicom
from nats.js.api import AckPolicy, ConsumerConfig
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from support.dicom_files import data_set_of
from support.instances import encoded, instance, part10
from support.multipart import parts
from support.stack import Stack
from support.subscribers import Subscribers

Identity = tuple[str, str, str]
EVENTS = ("ImageStoredEvent", "DicomAvailableEvent")
_DEADLINE = 45.0  # seconds in which an instance has to be taken, whatever was killed
_PACE = 0.02  # seconds between instances, so that the audit stays short
_TRY_LATER = {0xA700, None}  # out of resources, or no answer


def identity(data_set: pydicom.Dataset) -> Identity:
    """Study, series and instance UID."""
    return str(data_set.StudyInstanceUID), str(data_set.SeriesInstanceUID), str(data_set.SOPInstanceUID)


def until(condition: Callable[[], Any], seconds: float = 30, what: str = "") -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(0.05)
    return result


class Modality:
    """One DICOM association at a time; ``acknowledged`` keeps each data set by identity, ``statuses`` every answer."""

    def __init__(self, stack: Stack, service: str) -> None:
        self._stack, self._service = stack, service
        self._association: pynetdicom.association.Association | None = None
        self.acknowledged: dict[Identity, bytes] = {}
        self.statuses: Counter[int | None] = Counter()

    def __enter__(self) -> "Modality":
        return self

    def __exit__(self, *_: object) -> None:
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None
        gc.collect()  # sockets of connections that were refused, while their warning is expected

    def store(self, data_set: pydicom.Dataset) -> int | None:
        """One try; None when the association was lost or refused."""
        association, content = self._associated(), encoded(data_set)
        with _meta(data_set):
            status = association.send_c_store(data_set) if association else pydicom.Dataset()
        answer = int(status.Status) if "Status" in status else None
        self.statuses[answer] += 1
        if answer == 0:
            self.acknowledged[identity(data_set)] = content
        return answer

    def deliver(self, data_set: pydicom.Dataset) -> None:
        """Try again until it is acknowledged."""
        _insist(lambda: self.store(data_set), f"C-STORE to {self._service}: {self.statuses}")

    def _associated(self) -> pynetdicom.association.Association | None:
        if self._association is None or not self._association.is_established:
            ae = pynetdicom.AE(ae_title="PROMISES")
            ae.connection_timeout = 5
            ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
            ae.add_requested_context("1.2.840.10008.5.1.4.1.2.2.1")
            address = self._stack.ready[self._service]
            self._association = ae.associate(address["host"], address["port"], ae_title=address["ae_title"])
        return self._association if self._association.is_established else None


class StowClient:
    """STOW-RS, one instance a request."""

    def __init__(self, stack: Stack) -> None:
        self._client, self._url = httpx.Client(timeout=40), f"{stack.url('stow')}/studies"
        self.acknowledged: dict[Identity, bytes] = {}

    def __enter__(self) -> "StowClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def deliver(self, data_set: pydicom.Dataset) -> None:
        """Try again until it is acknowledged."""
        _insist(lambda: self._store(data_set), "STOW-RS")
        self.acknowledged[identity(data_set)] = encoded(data_set)

    def _store(self, data_set: pydicom.Dataset) -> int | None:
        body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + part10(data_set) + b"\r\n--b--\r\n"
        headers = {
            "Content-Type": 'multipart/related; type="application/dicom"; boundary=b',
            "Accept": "application/dicom+json",
        }
        try:
            response = self._client.post(self._url, content=body, headers=headers)
        except httpx.TransportError:
            return None
        if response.status_code == 200:
            return 0
        # 409: no instance could be stored, each with its own reason; later is fine for all that a crash causes.
        assert response.status_code in (409, 429, 500, 502, 503, 504), response.text
        return None


@contextmanager
def _meta(data_set: pydicom.Dataset) -> Iterator[None]:
    """pynetdicom finds the presentation context by the file meta header."""
    data_set.file_meta = pydicom.dataset.FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    try:
        yield
    finally:
        del data_set.file_meta


def _insist(attempt: Callable[[], int | None], what: str) -> None:
    deadline = time.monotonic() + _DEADLINE
    while (status := attempt()) != 0:
        assert status in _TRY_LATER, f"{what}: {status}"
        assert time.monotonic() < deadline, f"{what}: not acknowledged within {_DEADLINE:g} s"
        time.sleep(0.1)


@contextmanager
def streaming(client: Modality | StowClient, *, large_every: int = 25) -> Iterator[None]:
    """New instances, one after the other, during the block; its end waits until the last one is acknowledged.

    Every ``large_every``-th has 9 MiB, which goes through the relay's bucket and through spools on disk.
    """
    enough = threading.Event()

    def send() -> None:
        number = 0
        while not enough.is_set():
            number += 1
            client.deliver(of_size(9 << 20) if number % large_every == 0 else instance())
            enough.wait(_PACE)

    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(send)
        try:
            yield
        finally:
            enough.set()
        sending.result()


def of_size(size: int, **attributes: object) -> pydicom.Dataset:
    """An instance whose pixel data has that many bytes."""
    return instance(Rows=size // 2048, Columns=1024, PixelData=bytes(size // 2048 * 2048), **attributes)


def until_settled(stack: Stack, seconds: float = 40) -> None:
    """Wait until nothing is on its way: the relay's queue, and the events that wait to be published."""
    until(lambda: _waiting(stack) == (0, 0), seconds, "relay and outbox empty")


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


def audit(stack: Stack, acknowledged: dict[Identity, bytes], subscribers: Subscribers | None = None) -> None:
    """What was acknowledged is in the manifest, can be retrieved and was announced once; the manifest is what the space
    holds and what the subscribers were told."""
    until_settled(stack)
    rows = manifest_rows(stack)
    assert {one: rows.get(one) for one in acknowledged if one not in rows} == {}
    audit_space(stack, rows, acknowledged)
    asyncio.run(_retrieve(stack, acknowledged))
    assert dead_letters(stack) == {}
    announced = asyncio.run(events(stack))
    for name in EVENTS:
        assert announced[name].keys() == rows.keys(), name
        times = {one: announced[name][one] for one in acknowledged if announced[name][one] != 1}
        assert times == {}, name
    if subscribers is not None:
        audit_subscribers(subscribers, set(rows), acknowledged)


def audit_space(stack: Stack, rows: dict[Identity, str], acknowledged: dict[Identity, bytes]) -> None:
    """Every object is an instance's, of its own, or a version that was replaced; any other belongs to what was never
    acknowledged: its sender was cut off between object and event."""
    kept = objects(stack)
    assert set(rows.values()) - kept == set()
    assert Counter(rows.values()).most_common(1)[0][1] == 1
    left = kept - set(rows.values()) - replaced_objects(stack)
    assert {identity(_object(stack, key)) for key in left} & acknowledged.keys() == set()


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
            time.sleep(0.1)
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


def _assert_same(found: bytes, sent: bytes, one: Identity) -> None:
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
                kind = (message.headers or {})["ce-type"]
                if kind in found:
                    found[kind][_identity_of(kind, json.loads(message.data))] += 1
    finally:
        await client.close()
    return found


def _identity_of(kind: str, data: dict[str, Any]) -> Identity:
    if kind == "DicomAvailableEvent":
        _, study, _, series, _, sop = str(data["endpoint"]).rsplit("/", 5)
        return study, series, sop
    values = {element["group"] + element["element"]: element["value"] for element in data["image"]["elements"]}
    return values["0020000D"], values["0020000E"], values["00080018"]

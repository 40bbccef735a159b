"""The instance binding against real targets: fetch, then STOW-RS, C-STORE or webhook, fed by the event log's twin."""

import email
import hashlib
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from email.policy import HTTP
from pathlib import Path

import orjson
import pydicom
import pytest

from imaging_services.adapters.http.client import HttpOptions, HttpTarget
from imaging_services.adapters.memory.event_log import MemoryEventLog
from imaging_services.apps.instance_binding.deliver import DeliverInstance, WebhookSubscriber
from imaging_services.apps.instance_binding.stow import StowTarget
from imaging_services.domain.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    InvalidInput,
    NotDicom,
    NotFound,
    PermanentError,
    Refused,
)
from imaging_services.domain.events.envelope import DICOM_AVAILABLE, STUDY_REVISION, CloudEvent
from imaging_services.domain.events.selector import Selector
from imaging_services.domain.events.webhook import Webhook as WebhookTarget
from imaging_services.domain.pace import Pace
from support.dicom_files import data_set_of
from support.events import consuming, eventually, letters, letters_arrive
from support.forwarding import CT, SEVERAL, copy_of, forwarding
from support.orthanc import Orthanc
from support.wado_source import WadoSource, stored_file
from support.webhook import Receiver, Reply, Request, Webhook


@asynccontextmanager
async def to_stow(
    folder: Path, url: str, *, authorization: str | None = None, **how: object
) -> AsyncIterator[DeliverInstance]:
    options = HttpOptions(authorization=authorization, timeout_seconds=float(str(how.get("timeout", 20))))
    async with HttpTarget(url, options) as http, forwarding(folder, StowTarget(http), **how) as deliver:  # type: ignore[arg-type]
        yield deliver


class StowReceiver(Receiver):
    """Stores what it gets; ``instances`` are the bytes of the parts."""

    path = "/studies"

    def answer(self, request: Request) -> Reply:
        return Reply(200, b"{}", {"Content-Type": "application/dicom+json"})

    @property
    def instances(self) -> list[bytes]:
        return [part for request in self.requests for part in parts_of(request)[1]]


def parts_of(request: Request) -> tuple[list[str], list[bytes]]:
    """Content types and bodies of the parts, read by the standard library's rules."""
    boundary = request.headers["content-type"].partition("boundary=")[2].encode()
    pieces = (b"\r\n" + request.body).split(b"\r\n--" + boundary)
    assert pieces[0] == b""
    assert pieces[-1].startswith(b"--")
    types, bodies = [], []
    for piece in pieces[1:-1]:
        head, _, body = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        types.append(str(email.message_from_bytes(head + b"\r\n\r\n", policy=HTTP)["content-type"]))
        bodies.append(body)
    return types, bodies


@pytest.mark.parametrize("plain", [False, True])
async def test_stow_sends_the_file_as_it_is(tmp_path: Path, plain: bool) -> None:
    with WadoSource(*SEVERAL, plain=plain) as source, StowReceiver() as archive:
        async with to_stow(tmp_path / "spool", archive.url) as deliver:
            for file in SEVERAL:
                await deliver(source.event(file))
        assert archive.instances == [stored_file(file) for file in SEVERAL]
        assert source.requests[0].headers["accept"] == (
            'multipart/related; type="application/dicom"; transfer-syntax=*'
        )
        assert "authorization" not in source.requests[0].headers
        for request in archive.requests:
            assert parts_of(request)[0] == ["application/dicom"]
            assert request.headers["content-type"].startswith('multipart/related; type="application/dicom"; boundary=')
            assert int(request.headers["content-length"]) == len(request.body)
            assert "authorization" not in request.headers


async def test_stow_credentials_go_verbatim(tmp_path: Path) -> None:
    with WadoSource(CT, authorization="Bearer source") as source, StowReceiver() as archive:
        how = {"authorization": "Bearer target"}
        async with to_stow(tmp_path / "spool", archive.url, token="Bearer source", **how) as deliver:
            await deliver(source.event(CT))
        assert archive.requests[0].headers["authorization"] == "Bearer target"
        async with to_stow(tmp_path / "spool", archive.url, token="Bearer wrong") as deliver:
            with pytest.raises(Refused, match="401"):
                await deliver(source.event(CT))


async def test_stow_to_orthanc(tmp_path: Path) -> None:
    log = MemoryEventLog(retry_delays=(0.1,), max_tries=3)
    with Orthanc(tmp_path / "orthanc") as orthanc, WadoSource(*SEVERAL) as source:
        async with (
            to_stow(tmp_path / "spool", f"{orthanc.dicomweb}/studies") as deliver,
            consuming(log, "stow", deliver),
        ):
            await log.append([source.event(file) for file in SEVERAL])
            await eventually(lambda: len(orthanc.get("/instances")) == len(SEVERAL))
        assert await letters(log) == []
        stored = [pydicom.dcmread(io.BytesIO(orthanc.file(each))) for each in orthanc.get("/instances")]
        pixels = {str(data_set.SOPInstanceUID): data_set.PixelData for data_set in stored}
        for file in SEVERAL:
            assert pixels[file.sop_instance_uid] == pydicom.dcmread(file.path).PixelData


async def test_from_orthanc_as_source(tmp_path: Path) -> None:
    with Orthanc(tmp_path / "orthanc") as orthanc, StowReceiver() as archive, WadoSource(CT) as source:
        async with to_stow(tmp_path / "spool", f"{orthanc.dicomweb}/studies") as deliver:
            await deliver(source.event(CT))
        async with to_stow(tmp_path / "spool", archive.url) as deliver:
            await deliver(source.event_at(f"{orthanc.dicomweb}/{CT.resource}"))
        assert data_set_of(archive.instances[0])[-1024:] == CT.data_set[-1024:]


async def test_orthanc_refuses_what_is_no_dicom(tmp_path: Path) -> None:
    with Orthanc(tmp_path / "orthanc") as orthanc, WadoSource() as source:
        async with to_stow(tmp_path / "spool", f"{orthanc.dicomweb}/studies") as deliver:
            source.files["broken"] = stored_file(CT)[:600]  # UIDs are there, the rest is cut
            with pytest.raises(PermanentError):
                await deliver(source.event_at(f"{source.url}/broken"))


async def test_stow_failures_are_tried_again_or_given_up(tmp_path: Path) -> None:
    log = MemoryEventLog(retry_delays=(0.01,))
    others = [copy_of(CT, number) for number in range(2)]

    def failed(reason: int) -> bytes:
        return orjson.dumps({"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [reason]}}]}})

    with WadoSource(CT, *others) as source, StowReceiver() as archive:
        async with to_stow(tmp_path / "spool", archive.url) as deliver, consuming(log, "stow", deliver):
            archive.script = [Reply(409, failed(0xA700)), Reply(503), Reply(202, failed(0x0110)), Reply(429)]
            await log.append([source.event(CT)])
            await eventually(lambda: len(archive.requests) == 5)
            archive.script = [Reply(409, failed(0xC000))]
            await log.append([source.event(others[0])])
            (letter,) = await letters_arrive(log, 1)
            assert letter.attempts == 1
            assert "cannot understand (failure reason C000H, HTTP 409)" in letter.reason
            archive.script = [Reply(415, b"no such type")]
            await log.append([source.event(others[1])])
            _, letter = await letters_arrive(log, 2)
            assert "415 no such type" in letter.reason


async def test_never_acknowledged_before_the_target_said_yes(tmp_path: Path) -> None:
    log = MemoryEventLog(retry_delays=(0.05,), max_tries=1000)
    with StowReceiver() as gone:
        pass
    with WadoSource(CT) as source, StowReceiver() as archive:
        async with to_stow(tmp_path / "spool", gone.url) as deliver, consuming(log, "stow", deliver):
            await log.append([source.event(CT)])
            await eventually(lambda: len(source.requests) > 2)
        assert await letters(log) == []
        async with to_stow(tmp_path / "spool", archive.url) as deliver, consuming(log, "stow", deliver):
            await eventually(lambda: archive.instances)


async def test_gone_at_the_source(tmp_path: Path) -> None:
    log = MemoryEventLog()
    with WadoSource() as source, StowReceiver() as archive:
        async with to_stow(tmp_path / "spool", archive.url) as deliver, consuming(log, "stow", deliver):
            await log.append([source.event(CT)])
            (letter,) = await letters_arrive(log, 1)
        assert letter.attempts == 1
        assert "the announced instance is not there" in letter.reason
        assert CT.sop_instance_uid in letter.reason
        assert archive.requests == []
        async with to_stow(tmp_path / "spool", archive.url) as deliver:
            with pytest.raises(NotFound):
                await deliver(source.event(CT))


async def test_a_source_in_trouble(tmp_path: Path) -> None:
    part = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + stored_file(CT)
    multipart = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
    with WadoSource(CT) as source, StowReceiver() as archive:
        for reply, error in [
            (Reply(503), BackendUnavailable),
            (Reply(200, part, multipart), BackendUnavailable),
            (Reply(200, b"", delay=5), DeadlineExceeded),
            (Reply(200, b"<html></html>", {"Content-Type": "text/html"}), NotDicom),
            (Reply(200, part, {"Content-Type": "multipart/related"}), InvalidInput),
            (Reply(200, b"--b--\r\n", multipart), PermanentError),
            (Reply(302, b"", {"Location": "/login"}), Refused),
        ]:
            source.script = [reply]
            async with to_stow(tmp_path / "spool", archive.url, timeout=0.5 if reply.delay else 30) as deliver:
                with pytest.raises(error):
                    await deliver(source.event(CT))
        assert archive.requests == []


async def test_only_the_first_part_is_taken(tmp_path: Path) -> None:
    head = b"--b\r\nContent-Type: application/dicom\r\n\r\n"
    body = head + stored_file(CT) + b"\r\n" + head + b"something else\r\n--b--\r\n"
    with WadoSource(CT) as source, StowReceiver() as archive:
        source.script = [Reply(200, body, {"Content-Type": "multipart/related; boundary=b"})]
        async with to_stow(tmp_path / "spool", archive.url) as deliver:
            await deliver(source.event(CT))
        assert archive.instances == [stored_file(CT)]


async def test_a_target_that_hangs(tmp_path: Path) -> None:
    with WadoSource(CT) as source, StowReceiver() as archive:
        archive.script = [Reply(200, delay=20)]
        async with to_stow(tmp_path / "spool", archive.url, timeout=0.3) as impatient:
            while not archive.requests:  # where fetching was too slow, try again
                with pytest.raises(DeadlineExceeded):
                    await impatient(source.event(CT))
        async with to_stow(tmp_path / "spool", archive.url) as deliver:
            await deliver(source.event(CT))


async def test_a_large_instance_goes_through_the_spool(tmp_path: Path) -> None:
    large = replace(CT, data_set=CT.data_set + b"\xfe\xff\x00\xe0" + bytes(24 << 20))
    digest = hashlib.sha256(stored_file(large)).digest()
    with WadoSource(large) as source, StowReceiver() as archive:
        async with to_stow(tmp_path / "spool", archive.url) as deliver:
            await deliver(source.event(large))
        assert hashlib.sha256(archive.instances[0]).digest() == digest


async def test_no_more_at_a_time_than_wanted(tmp_path: Path) -> None:
    files = [copy_of(CT, number) for number in range(12)]
    log = MemoryEventLog()
    with WadoSource(*files) as source, StowReceiver() as archive:
        archive.script = [Reply(200, delay=0.1) for _ in range(12)]
        async with (
            to_stow(tmp_path / "spool", archive.url, concurrency=3) as deliver,
            consuming(log, "stow", deliver, concurrency=8),
        ):
            await log.append([source.event(file) for file in files])
            await eventually(lambda: len(archive.requests) == 12)
        assert archive.most_at_once == 3


async def test_other_providers_are_acknowledged_and_skipped(tmp_path: Path) -> None:
    log = MemoryEventLog()
    with WadoSource(CT) as source, StowReceiver() as archive:
        async with (
            to_stow(tmp_path / "spool", archive.url, selector="north, west[0-9]+") as deliver,
            consuming(log, "stow", deliver),
        ):
            for provider in ("northern", "south", "west", "north", "west12"):
                await log.append([replace(source.event(CT, provider=provider), id=provider)])
            await eventually(lambda: len(archive.requests) == 2)
        assert await letters(log) == []
        assert len(source.requests) == 2


async def test_an_event_that_is_no_announcement(tmp_path: Path) -> None:
    with WadoSource(CT) as source, StowReceiver() as archive:
        async with to_stow(tmp_path / "spool", archive.url) as deliver:
            for data in (b"[]", b"{}", b'{"provider": "north"}', b'{"provider": 1, "endpoint": "http://x"}'):
                with pytest.raises(InvalidInput, match=DICOM_AVAILABLE):
                    await deliver(CloudEvent(DICOM_AVAILABLE, "test", "1", data))
            with pytest.raises(InvalidInput, match="URL"):
                await deliver(source.event_at("file:///etc/passwd"))
            with pytest.raises(InvalidInput, match=f"not {STUDY_REVISION}"):
                await deliver(CloudEvent(STUDY_REVISION, "test", "1", b"{}"))
        assert archive.requests == []


async def test_a_webhook_gets_the_event_as_it_is() -> None:
    with WadoSource(CT) as source, Webhook() as hook:
        event = replace(source.event(CT), extensions={"traceparent": "00-1-2-01"})
        async with HttpTarget(hook.url, HttpOptions(authorization="Bearer hook")) as http:
            deliver = DeliverInstance(WebhookSubscriber(WebhookTarget(http)), Selector(), Pace(1))
            await deliver(event)
            hook.script = [Reply(500), Reply(400)]
            with pytest.raises(BackendUnavailable):
                await deliver(event)
            with pytest.raises(Refused):
                await deliver(event)
        received = hook.events[0]
        assert {name: received[name] for name in ("id", "type", "source", "traceparent", "specversion")} == {
            "id": event.id,
            "type": DICOM_AVAILABLE,
            "source": event.source,
            "traceparent": "00-1-2-01",
            "specversion": "1.0",
        }
        assert hook.requests[0].body == event.data
        assert hook.requests[0].headers["authorization"] == "Bearer hook"
        assert source.requests == []

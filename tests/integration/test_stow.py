"""STOW-RS over a real HTTP server: what is stored, what is refused, and what the response says."""

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pydicom
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY

from imaging_services.adapters.files.spool import FileSpools
from imaging_services.adapters.http.guard import Guard
from imaging_services.adapters.http.server import serve
from imaging_services.adapters.memory.event_sink import MemoryEventSink
from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.apps.dicomweb_ingestion.problems import install_problem_handlers
from imaging_services.apps.dicomweb_ingestion.stow import StowLimits, parse_size, stow_router
from imaging_services.domain.errors import BackendUnavailable, Conflict, OutOfResources, SettingsError
from imaging_services.domain.ingest.ingest import Ingest
from support.dicom_files import data_set_of
from support.events import eventually
from support.instances import encoded, instance, part10

BOUNDARY = "part-boundary"
TYPE = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
FAILED, REFERENCED, OTHER = "00081198", "00081199", "0008119A"
WADO = "https://images.example.org/wado-rs"


class Service:
    """A STOW-RS service on memory."""

    def __init__(self, spool: Path) -> None:
        self.store, self.sink = MemoryObjectStore(), MemoryEventSink()
        self.ingest = Ingest(
            self.store, self.sink, FileSpools(spool), provider="north", source="test", wado_external=WADO
        )
        self.app = FastAPI()
        install_problem_handlers(self.app)
        self.limits = StowLimits(max_body=20_000_000, concurrency=3, memory=100_000)
        self.app.include_router(stow_router(self.ingest, self.limits), prefix="/dicomweb")
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicomweb/studies"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    started = Service(tmp_path)
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    app = Guard(started.app)
    server = asyncio.create_task(serve(app, "127.0.0.1", 0, stop, drain_seconds=30, listening=port.set_result))
    started.port = await port
    yield started
    stop.set()
    await server
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def multipart(*parts: bytes | tuple[bytes, str], end: bytes = b"--\r\n") -> bytes:
    body = b""
    for part in parts:
        content, media_type = part if isinstance(part, tuple) else (part, "application/dicom")
        body += f"--{BOUNDARY}\r\nContent-Type: {media_type}\r\n\r\n".encode() + content + b"\r\n"
    return body + f"--{BOUNDARY}".encode() + end


async def post(
    url: str, body: bytes | AsyncIterator[bytes], content_type: str = TYPE, accept: str | None = None
) -> httpx.Response:
    headers = {"Content-Type": content_type} | ({"Accept": accept} if accept else {})
    async with httpx.AsyncClient(timeout=30, headers={"Accept": "*/*"}) as client:
        return await client.post(url, content=body, headers=headers)


def uids(document: dict, sequence: str) -> list[str]:
    items = document.get(sequence, {"Value": []})["Value"]
    return [item.get("00081155", {"Value": [""]})["Value"][0] for item in items]


def reasons(document: dict, sequence: str = FAILED) -> list[int]:
    return [item["00081197"]["Value"][0] for item in document[sequence]["Value"]]


async def test_all_stored_is_200_with_references(service: Service) -> None:
    study = pydicom.uid.generate_uid()
    datasets = [instance(StudyInstanceUID=study) for _ in range(5)]
    response = await post(service.url, multipart(*map(part10, datasets)))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/dicom+json"
    document = response.json()
    assert uids(document, REFERENCED) == [dataset.SOPInstanceUID for dataset in datasets]
    assert document["00081190"] == {"vr": "UR", "Value": [f"{WADO}/studies/{study}"]}
    item = document[REFERENCED]["Value"][0]
    assert item["00081150"] == {"vr": "UI", "Value": [datasets[0].SOPClassUID]}
    assert item["00081190"]["Value"] == [
        f"{WADO}/studies/{study}/series/{datasets[0].SeriesInstanceUID}/instances/{datasets[0].SOPInstanceUID}"
    ]
    assert FAILED not in document
    assert len(service.store.objects) == len(service.sink.events) == 5


async def test_the_response_is_xml_when_asked_for(service: Service) -> None:
    dataset = instance()
    response = await post(service.url, multipart(part10(dataset), b"junk"), accept="application/dicom+xml")
    assert response.status_code == 202
    assert response.headers["content-type"] == "application/dicom+xml"
    root = ET.fromstring(response.content)
    assert root.tag == "{http://dicom.nema.org/PS3.19/models/NativeDICOM}NativeDicomModel"
    assert {child.get("keyword") for child in root} == {
        "RetrieveURL",
        "FailedSOPSequence",
        "ReferencedSOPSequence",
        "OtherFailuresSequence",
    }


async def test_sending_again_adds_nothing(service: Service) -> None:
    body = multipart(part10(instance()))
    assert [(await post(service.url, body)).status_code for _ in range(2)] == [200, 200]
    assert len(service.store.objects) == len(service.sink.events) == 1


async def test_a_part_that_is_not_dicom_beside_good_ones_is_202(service: Service) -> None:
    good = [instance(), instance()]
    response = await post(
        service.url,
        multipart(
            part10(good[0]),
            b"this is not DICOM " * 1000,
            (b"%PDF-1.7", "application/pdf"),
            (b"x", "broken"),
            b"",
            part10(instance(StudyInstanceUID=None)),
            part10(good[1]),
        ),
    )
    assert response.status_code == 202
    document = response.json()
    assert uids(document, REFERENCED) == [dataset.SOPInstanceUID for dataset in good]
    assert reasons(document) == [0xC000] * 5
    assert len(reasons(document, OTHER)) == 5
    assert len(service.store.objects) == 2


async def test_none_stored_is_409(service: Service) -> None:
    response = await post(service.url, multipart(b"junk", b"more junk" * 100_000))
    assert response.status_code == 409
    assert reasons(response.json()) == [0xC000, 0xC000]
    assert not service.store.objects


async def test_instances_of_another_study_are_refused(service: Service) -> None:
    mine, other = instance(), instance()
    url = f"{service.url}/{mine.StudyInstanceUID}"
    mixed = await post(url, multipart(part10(mine), part10(other)))
    assert mixed.status_code == 202
    assert uids(mixed.json(), REFERENCED) == [mine.SOPInstanceUID]
    assert uids(mixed.json(), FAILED) == [other.SOPInstanceUID]
    assert reasons(mixed.json()) == [0xA900]
    assert (await post(url, multipart(part10(other)))).status_code == 409
    assert (await post(f"{service.url}/not-a-uid", multipart(part10(other)))).status_code == 400
    assert len(service.store.objects) == 1


async def test_the_files_own_meta_header_wins(service: Service) -> None:
    dataset = instance()
    body = multipart((part10(dataset), "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.50"))
    assert (await post(service.url, body)).status_code == 200
    assert b'"transferSyntaxUID":"1.2.840.10008.1.2.1"' in service.sink.events[0].data


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"])
@pytest.mark.parametrize("named", [True, False])
async def test_a_part_without_meta_header_is_stored(service: Service, syntax: str, named: bool) -> None:
    body = encoded(instance(), syntax)
    media_type = f'application/dicom; transfer-syntax="{syntax}"' if named else "application/dicom"
    assert (await post(service.url, multipart((body, media_type)))).status_code == 200
    (content,) = service.store.objects.values()
    assert data_set_of(content) == body
    assert pydicom.dcmread(pydicom.filebase.DicomBytesIO(content)).file_meta.TransferSyntaxUID == syntax


async def test_a_broken_meta_header_is_refused(service: Service) -> None:
    good = part10(instance())
    broken = good[:132] + b"\x02\x00\x01\x00OB\0\0\xff\xff\xff\xff" + good[144:]
    response = await post(service.url, multipart(broken, good))
    assert response.status_code == 202
    assert reasons(response.json()) == [0xC000]


async def test_what_the_manifest_refuses_is_told_with_its_uids(service: Service) -> None:
    dataset = instance()
    service.sink.failure = Conflict("the series belongs to another provider")
    response = await post(service.url, multipart(part10(dataset)))
    assert response.status_code == 409
    assert uids(response.json(), FAILED) == [dataset.SOPInstanceUID]
    assert reasons(response.json()) == [0x0110]
    assert OTHER not in response.json()


@pytest.mark.parametrize(
    ("failure", "status", "reason"),
    [
        (BackendUnavailable("down"), 503, 0x0110),
        (OutOfResources("full"), 503, 0xA700),
        (RuntimeError("bug"), 500, 0x0110),
    ],
)
async def test_when_trying_again_may_help_it_is_a_5xx(
    service: Service, failure: Exception, status: int, reason: int
) -> None:
    service.store.failure = failure
    response = await post(service.url, multipart(part10(instance())))
    assert response.status_code == status
    assert response.headers["retry-after"]
    assert reasons(response.json()) == [reason]
    assert "bug" not in response.text


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("multipart/related; type=application/dicom", 400),
        ('multipart/related; type="application/dicom"; boundary=""', 400),
        ("application/dicom", 409),
        ("application/pdf", 415),
        (f"multipart/form-data; boundary={BOUNDARY}", 415),
        (f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}', 400),
        ("nonsense", 400),
        (f"multipart/related; boundary={BOUNDARY}", 200),
        (f'MULTIPART/Related;TYPE="Application/DICOM";Boundary="{BOUNDARY}"', 200),
    ],
)
async def test_content_types(service: Service, content_type: str, status: int) -> None:
    response = await post(service.url, multipart(part10(instance())), content_type)
    assert response.status_code == status
    if status in (400, 415):
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["detail"]
        assert "Traceback" not in response.text
        assert not service.store.objects


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/dicom+json", 200),
        ("application/json", 200),
        ("text/html, application/dicom+xml;q=0.5", 200),
        ("image/png", 406),
    ],
)
async def test_accept(service: Service, accept: str, status: int) -> None:
    response = await post(service.url, multipart(part10(instance())), accept=accept)
    assert response.status_code == status
    assert len(service.store.objects) == (status == 200)


@pytest.mark.parametrize("body", [b"", b"no multipart at all", multipart()])
async def test_a_body_without_parts_is_400(service: Service, body: bytes) -> None:
    response = await post(service.url, body)
    assert response.status_code == 400
    assert "no part" in response.json()["detail"] or "malformed" in response.json()["detail"]


async def test_a_body_cut_in_the_middle_keeps_what_came_whole(service: Service) -> None:
    first, second = instance(), instance()
    body = multipart(part10(first), part10(second))
    response = await post(service.url, body[: -len(part10(second)) // 2])
    assert response.status_code == 400
    assert "instances stored before that: 1" in response.json()["detail"]
    (event,) = service.sink.events
    assert first.SOPInstanceUID.encode() in event.data
    assert len(service.store.objects) == 1


async def test_a_missing_final_boundary_is_400(service: Service) -> None:
    body = multipart(part10(instance()), part10(instance()), end=b"")
    response = await post(service.url, body)
    assert response.status_code == 400
    assert len(service.store.objects) == len(service.sink.events) == 1


async def test_a_cut_connection_keeps_what_came_whole(service: Service) -> None:
    body = multipart(part10(instance()), part10(instance()))
    _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    head = f"POST /dicomweb/studies HTTP/1.1\r\nHost: x\r\nContent-Type: {TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body[:-300])
    await writer.drain()
    await eventually(lambda: service.sink.events)
    writer.transport.abort()
    await eventually(lambda: REGISTRY.get_sample_value("imaging_http_requests_under_way") == 0)
    assert len(service.store.objects) == len(service.sink.events) == 1
    assert (await post(service.url, body)).status_code == 200  # the process goes on
    assert len(service.store.objects) == len(service.sink.events) == 2


async def test_a_body_that_is_too_long_is_413(service: Service) -> None:
    body = multipart(part10(instance()), b"x" * 20_000_000)
    declared = await post(service.url, body)
    assert declared.status_code == 413
    assert not service.store.objects

    async def chunks() -> AsyncIterator[bytes]:
        for position in range(0, len(body), 65536):
            yield body[position : position + 65536]

    chunked = await post(service.url, chunks())
    assert chunked.status_code == 413
    assert "MAX_STOW_SIZE" in chunked.json()["detail"]
    assert len(service.store.objects) == 1


async def test_many_instances_are_stored_at_once_within_bounds(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = most = 0
    put, enough = service.store.put, asyncio.Event()

    async def slow(key: str, body: bytes | Path) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == service.limits.concurrency:
            enough.set()
        async with asyncio.timeout(30):
            await enough.wait()
        await asyncio.sleep(0.01)
        running -= 1
        await put(key, body)

    monkeypatch.setattr(service.store, "put", slow)
    response = await post(service.url, multipart(*(part10(instance()) for _ in range(20))))
    assert response.status_code == 200
    assert len(service.store.objects) == 20
    assert most == service.limits.concurrency


async def test_memory_is_bounded_over_requests(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    running = most = 0
    put = service.store.put

    async def slow(key: str, body: bytes | Path) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        await put(key, body)

    monkeypatch.setattr(service.store, "put", slow)
    big = [instance(PixelData=bytes(120_000), Rows=600, Columns=100) for _ in range(8)]  # each is over the budget
    responses = await asyncio.gather(
        *(post(service.url, multipart(part10(one), part10(two))) for one, two in zip(big[::2], big[1::2], strict=True))
    )
    assert [response.status_code for response in responses] == [200] * 4
    assert len(service.store.objects) == 8


async def test_a_large_instance_goes_by_the_disk(service: Service) -> None:
    dataset = instance(PixelData=bytes(12_000_000), Rows=2000, Columns=3000)
    assert (await post(service.url, multipart(part10(dataset)))).status_code == 200
    (content,) = service.store.objects.values()
    assert data_set_of(content) == encoded(dataset)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("10240K", 10240 * 1024),
        ("", None),
        ("0", None),
        ("500", 500),
        ("2M", 2 << 20),
        ("1g", 1 << 30),
        (" 4 KB ", 4096),
    ],
)
def test_max_stow_size_notation(text: str, size: int | None) -> None:
    assert parse_size(text) == size


def test_a_wrong_max_stow_size_is_named() -> None:
    with pytest.raises(SettingsError, match="MAX_STOW_SIZE"):
        parse_size("lots")

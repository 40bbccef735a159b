"""The forms of STOW-RS beside multipart DICOM: metadata with bulk data, documents, a single instance; and warnings."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pydicom
import pytest
from fastapi import FastAPI
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    EncapsulatedPDFStorage,
    EncapsulatedSTLStorage,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    generate_uid,
)

from imaging_services.adapters.files.spool import FileSpools
from imaging_services.adapters.memory.event_sink import MemoryEventSink
from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.apps.dicomweb_ingestion import stow_metadata
from imaging_services.apps.dicomweb_ingestion.problems import install_problem_handlers
from imaging_services.apps.dicomweb_ingestion.stow import StowLimits, stow_router
from imaging_services.apps.dicomweb_ingestion.stow_metadata import MAX_METADATA
from imaging_services.domain.dicom.native_model import native_dicom_model
from imaging_services.domain.ingest.ingest import Ingest
from support.dicom_files import data_set_of, storable_files
from support.dicomweb import part10_of, served
from support.instances import encoded, instance, part10

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, on what real files hold
BOUNDARY = "part-boundary"
FAILED, REFERENCED = "00081198", "00081199"
JPEG = bytes.fromhex("ffd8 ffe0 0004 6162 ffc0 000b 0800 0800 0801 0111 00 ffda 0008 0101 0000 3f00 ffd9 00")
CODESTREAM = b"\xff\x4f\xff\x51codestream"
JP2 = b"\x00\x00\x00\x0cjP  \r\n\x87\n" + b"\x00\x00\x00\x0cftypjp2 " + b"\x00\x00\x00\x00jp2c" + CODESTREAM


class Service:
    """STOW-RS on memory, and what it stored."""

    def __init__(self, spool: Path) -> None:
        self.store, self.sink = MemoryObjectStore(), MemoryEventSink()
        ingest = Ingest(self.store, self.sink, FileSpools(spool), provider="north", source="test")
        self.app = FastAPI()
        install_problem_handlers(self.app)
        self.app.include_router(stow_router(ingest, StowLimits(max_body=30_000_000)))

    async def post(self, body: bytes, content_type: str, path: str = "/studies", **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post(path, content=body, headers={"Content-Type": content_type, **headers})

    @property
    def stored(self) -> list[pydicom.Dataset]:
        return [pydicom.dcmread(io.BytesIO(content)) for content in self.store.objects.values()]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    yield Service(tmp_path)
    assert not list(tmp_path.iterdir())


def related(payload: str, *parts: tuple[str, bytes] | tuple[str, bytes, str]) -> tuple[bytes, str]:
    body = b""
    for media_type, content, *location in parts:
        where = f"Content-Location: {location[0]}\r\n" if location else ""
        body += f"--{BOUNDARY}\r\nContent-Type: {media_type}\r\n{where}\r\n".encode() + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode(), f'multipart/related; type="{payload}"; boundary={BOUNDARY}'


def model_of(dataset: pydicom.Dataset) -> dict[str, Any]:
    """The metadata, with the pixel data by reference."""
    model = dataset.to_json_dict()
    if "7FE00010" in model:
        model["7FE00010"] = {"vr": model["7FE00010"]["vr"], "BulkDataURI": "bulk/1"}
    return model


def as_json(*models: dict[str, Any]) -> tuple[str, bytes]:
    return "application/dicom+json", json.dumps(models).encode()


async def test_a_single_instance_needs_no_multipart(service: Service) -> None:
    dataset = instance()
    response = await service.post(part10(dataset), "application/dicom")
    assert response.status_code == 200
    assert data_set_of(next(iter(service.store.objects.values()))) == encoded(dataset)
    assert (await service.post(b"", "application/dicom")).status_code == 400


async def test_metadata_in_json_and_pixel_data_make_an_instance(service: Service) -> None:
    dataset = instance(
        PatientName="Äneas^Jürgen", PatientComments="ü" * 3, WindowCenter=[40.5, 300], LossyImageCompression="00"
    )
    body, media_type = related(
        "application/dicom+json",
        as_json(model_of(dataset)),
        ("application/octet-stream", dataset.PixelData, "bulk/1"),
    )
    response = await service.post(body, media_type)
    assert response.status_code == 200, response.text
    (stored,) = service.stored
    assert stored.SpecificCharacterSet == "ISO_IR 192"
    assert comparable(stored.to_json_dict()) == comparable(as_it_is_read(dataset).to_json_dict())


async def test_metadata_in_xml_and_pixel_data_make_instances(service: Service) -> None:
    datasets = [instance(PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう") for _ in range(2)]
    models = [model_of(dataset) for dataset in datasets]
    for number, model in enumerate(models):
        model["7FE00010"]["BulkDataURI"] = f"http://test/{number}"
    parts = [("application/dicom+xml", native_dicom_model(model)) for model in models]
    bulk = [("application/octet-stream", bytes([n]) * 128, f"http://test/{n}") for n in range(2)]
    response = await service.post(*related("application/dicom+xml", *parts, *bulk), Accept="application/dicom+xml")
    assert response.status_code == 200
    assert ET.fromstring(response.content).find(".//*[@keyword='ReferencedSOPSequence']") is not None
    assert {(one.PatientName, one.PixelData[0]) for one in service.stored} == {
        (dataset.PatientName, number) for number, dataset in enumerate(datasets)
    }


def as_it_is_read(dataset: pydicom.Dataset) -> pydicom.Dataset:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    return pydicom.dcmread(io.BytesIO(part10(dataset)))


def comparable(model: dict[str, Any]) -> dict[str, Any]:
    return {tag: value for tag, value in model.items() if tag != "00080005" and tag[4:] != "0000"}


@pytest.mark.parametrize("form", ["json", "xml"])
async def test_every_real_header_survives_the_model(service: Service, form: str) -> None:
    """What the model says of an instance is the same after it was stored from the model."""
    checked = 0
    for file in storable_files():
        dataset = pydicom.dcmread(io.BytesIO(part10_of(file)))
        if "PixelData" in dataset or dataset.file_meta.TransferSyntaxUID.is_deflated:
            continue
        try:
            model = dataset.to_json_dict()
        except Exception:  # noqa: BLE001 - pydicom cannot say every broken value in JSON
            continue
        json_part = as_json(model)
        part = (
            json_part if form == "json" else ("application/dicom+xml", native_dicom_model(json.loads(json_part[1])[0]))
        )
        service.store.objects.clear()
        response = await service.post(*related(f"application/dicom+{form}", part))
        assert response.status_code == 200, (file.path.name, response.text)
        (stored,) = service.stored
        assert comparable(stored.to_json_dict()) == comparable(model), file.path.name
        checked += 1
    assert checked >= 5


@pytest.mark.parametrize(
    ("media_type", "content", "syntax", "fragment"),
    [
        ("image/jpeg", JPEG, JPEGBaseline8Bit, JPEG),
        ("image/jpeg; transfer-syntax=1.2.840.10008.1.2.4.70", b"\xff\xd8any", JPEGLosslessSV1, b"\xff\xd8any\x00"),
        ("image/jp2", JP2, JPEG2000Lossless, CODESTREAM + b"\x00" * (len(CODESTREAM) % 2)),
        ("application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.90", CODESTREAM, JPEG2000Lossless, CODESTREAM),
    ],
)
async def test_a_compressed_image_is_encapsulated(
    service: Service, media_type: str, content: bytes, syntax: str, fragment: bytes
) -> None:
    body, request_type = related(
        "application/dicom+json", as_json(model_of(instance())), (media_type, content, "bulk/1")
    )
    assert (await service.post(body, request_type)).status_code == 200
    (stored,) = service.stored
    assert stored.file_meta.TransferSyntaxUID == syntax
    padded = fragment + b"\x00" * (len(fragment) % 2)
    assert list(pydicom.encaps.generate_frames(stored.PixelData, number_of_frames=1)) == [padded]


async def test_frames_come_in_parts_of_their_own(service: Service) -> None:
    frames = [JPEG + bytes([n]) * 2 for n in range(3)]
    parts = [("image/jpeg", frames[n], f"bulk/1/frames/{n + 1}") for n in (2, 0, 1)]
    model = model_of(instance(NumberOfFrames=3))
    assert (await service.post(*related("application/dicom+json", as_json(model), *parts))).status_code == 200
    (stored,) = service.stored
    found = pydicom.encaps.generate_frames(stored.PixelData, number_of_frames=3)
    assert [one.rstrip(b"\x00") for one in found] == [one.rstrip(b"\x00") for one in frames]


@pytest.mark.parametrize("media_type", ["image/jpeg", "application/octet-stream"])
async def test_bulk_data_of_several_instances_under_one_location_is_not_mixed(
    service: Service, media_type: str
) -> None:
    parts = [(media_type, JPEG + bytes([n]) * 2, "bulk/1") for n in range(2)]
    models = [model_of(instance()), model_of(instance())]
    response = await service.post(*related("application/dicom+json", as_json(*models), *parts))
    assert response.status_code == 409, response.text
    assert [one["00081197"]["Value"] for one in response.json()[FAILED]["Value"]] == [[0xC000]] * 2
    assert not service.stored


async def test_bulk_data_that_no_metadata_refers_to_is_not_thrown_away_in_silence(service: Service) -> None:
    model = model_of(instance())
    parts = [("application/octet-stream", bytes(128), name) for name in ("bulk/1", "bulk/2")]
    response = await service.post(*related("application/dicom+json", as_json(model), *parts))
    assert response.status_code == 400
    assert "bulk data" in response.text
    assert not service.stored
    model["00091010"] = {"vr": "OB", "BulkDataURI": "bulk/2"}
    model["00090010"] = {"vr": "LO", "Value": ["TEST"]}
    assert (await service.post(*related("application/dicom+json", as_json(model), *parts))).status_code == 200


async def test_a_part_that_is_referred_to_again_and_again_counts_as_often(service: Service) -> None:
    part = ("application/octet-stream", bytes(10_000_000), "bulk/1")
    few, many = ([model_of(instance()) for _ in range(count)] for count in (3, 4))
    refused = await service.post(*related("application/dicom+json", as_json(*many), part))
    assert refused.status_code == 413
    assert "40000000 bytes of bulk data" in refused.text
    assert not service.stored
    assert (await service.post(*related("application/dicom+json", as_json(*few), part))).status_code == 200


@pytest.mark.parametrize("form", ["json", "xml"])
async def test_metadata_may_have_a_location_too(service: Service, form: str) -> None:
    """Libraries for MIME give each part one."""
    model = model_of(instance())
    kind, content = as_json(model) if form == "json" else ("application/dicom+xml", native_dicom_model(model))
    bulk = ("application/octet-stream", bytes(128), "bulk/1")
    response = await service.post(*related(kind, (kind, content, "metadata"), bulk))
    assert response.status_code == 200, response.text
    assert service.stored[0].PixelData == bytes(128)


async def test_large_bulk_data_passes_through_the_spool(service: Service) -> None:
    content = bytes(range(256)) * 40_000  # above what is kept in memory
    model = model_of(instance(Rows=2000, Columns=2560))
    part = ("application/octet-stream", content, "bulk/1")
    assert (await service.post(*related("application/dicom+json", as_json(model), part))).status_code == 200
    assert service.stored[0].PixelData == content


@pytest.mark.parametrize(
    ("media_type", "sop_class", "mime_type"),
    [
        ("application/pdf", EncapsulatedPDFStorage, "application/pdf"),
        ("text/xml", "1.2.840.10008.5.1.4.1.1.104.2", "text/XML"),
        ("model/stl", EncapsulatedSTLStorage, "model/stl"),
    ],
)
async def test_a_document_is_encapsulated(service: Service, media_type: str, sop_class: str, mime_type: str) -> None:
    dataset = instance(PixelData=None, SOPClassUID=None)
    model = {**dataset.to_json_dict(), "00420011": {"vr": "OB", "BulkDataURI": "document"}}
    content = b"<a document of odd length>."
    response = await service.post(*related("application/dicom+json", as_json(model), (media_type, content, "document")))
    assert response.status_code == 200, response.text
    (stored,) = service.stored
    assert stored.SOPClassUID == sop_class
    assert stored.MIMETypeOfEncapsulatedDocument == mime_type
    assert stored.EncapsulatedDocument == content + b"\x00"
    assert stored.EncapsulatedDocumentLength == len(content)
    (item,) = response.json()[REFERENCED]["Value"]
    assert item["00081196"] == {"vr": "US", "Value": [0xB000]}
    added = {
        one["00720026"]["Value"][0] for one in item["00741048"]["Value"] if "set to" in one["00000902"]["Value"][0]
    }
    assert added == {"00080016", "00420012", "00420015"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"7FE00010": {"vr": "OW", "BulkDataURI": "elsewhere"}}, 0xC000),
        ({"7FE00010": {"vr": "OW", "BulkDataURI": "picture"}}, 0xC122),
        ({"00091010": {"vr": "OB", "BulkDataURI": "photo"}}, 0xC000),
        ({"00280010": {"vr": "US", "Value": ["many"]}}, 0xC000),
        ({"00280010": {"vr": "US", "Value": [70_000]}}, 0xC000),
        ({"00280010": {"vr": "US", "Value": [8.5]}}, 0xC000),
        ({"00280010": {"vr": "XX"}}, 0xC000),
        ({"00280010": 8}, 0xC000),
        ({"rows": {"vr": "US"}}, 0xC000),
        ({"00080018": {"vr": "UI", "Value": []}}, 0xC000),
        ({"0020000D": {"vr": "UI", "Value": ["1.2.3"]}}, 0xA900),
        ({"00080018": {"vr": "UI", "Value": [1]}}, 0xC000),
        ({"00420010": {"vr": "OB", "InlineBinary": "*"}}, 0xC000),
    ],
)
async def test_an_instance_that_cannot_be_made_is_told_beside_one_that_can(
    service: Service, change: dict[str, Any], reason: int
) -> None:
    study = generate_uid()
    good, bad = (model_of(instance(StudyInstanceUID=study)) for _ in range(2))
    parts = [("application/octet-stream", bytes(128), "bulk/1"), ("image/png", b"\x89PNG", "picture")]
    parts.append(("image/jpeg", JPEG, "photo"))
    named = {one.get("BulkDataURI") for one in change.values() if isinstance(one, dict)}
    parts = [part for part in parts if part[2] in {"bulk/1", *named}]
    body, media_type = related("application/dicom+json", as_json(good, {**bad, **change}), *parts)
    response = await service.post(body, media_type, f"/studies/{study}")
    assert response.status_code == 202, response.text
    assert [one["00081197"]["Value"] for one in response.json()[FAILED]["Value"]] == [[reason]]
    assert len(service.stored) == 1


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"{", "application/dicom+json"),
        (b"[]", "application/dicom+json"),
        (b"<NativeDicomModel>", "application/dicom+xml"),
        (b"<Other/>", "application/dicom+xml"),
        (b'<?xml version="1.0" encoding="shift_jis"?><NativeDicomModel/>', "application/dicom+xml"),
        (b'<?xml version="1.0" encoding="none"?><NativeDicomModel/>', "application/dicom+xml"),
        (b"<!DOCTYPE a [<!ENTITY b 'c'>]><NativeDicomModel/>", "application/dicom+xml"),
        (b"<NativeDicomModel>" + b"<a>" * 500 + b"</a>" * 500 + b"</NativeDicomModel>", "application/dicom+xml"),
    ],
)
async def test_metadata_that_cannot_be_read_is_400(service: Service, content: bytes, media_type: str) -> None:
    response = await service.post(*related(media_type, (media_type, content)))
    assert response.status_code == 400, response.text
    assert not service.stored


@pytest.mark.parametrize(
    "parts",
    [
        [("application/dicom+json", b" " * (MAX_METADATA + 1))],
        [("application/dicom+json", b"[{},{},{}]")],
        [("application/dicom+xml", b"<NativeDicomModel/>")] * 3,
    ],
    ids=["bytes", "instances", "documents"],
)
async def test_metadata_has_a_limit(
    service: Service, parts: list[tuple[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stow_metadata, "MAX_INSTANCES", 2)
    assert (await service.post(*related(parts[0][0], *parts))).status_code == 413


async def test_elements_without_a_place_in_a_data_set_are_left_out_with_a_warning(service: Service) -> None:
    model = instance(PixelData=None, SOPClassUID=ComputedRadiographyImageStorage).to_json_dict()
    model["00000100"] = {"vr": "US", "Value": [1]}
    response = await service.post(*related("application/dicom+json", as_json(model)))
    (item,) = response.json()[REFERENCED]["Value"]
    assert item["00081196"]["Value"] == [0xB006]
    assert item["00741048"]["Value"][0]["00720026"]["Value"] == ["00000100"]


async def test_what_bends_the_standard_is_stored_as_it_is_with_a_warning_for_each_attribute(service: Service) -> None:
    dataset = instance()
    content = part10(dataset).replace(b"CT", b"ct")
    response = await service.post(content, "application/dicom")
    assert response.status_code == 200
    assert b"ct" in next(iter(service.store.objects.values()))
    (item,) = response.json()[REFERENCED]["Value"]
    assert item["00081196"] == {"vr": "US", "Value": [0xB007]}
    told = {one["00720026"]["Value"][0]: one["00000902"]["Value"][0] for one in item["00741048"]["Value"]}
    assert told["00080060"] == "a value is not CS as PS3.5 has it"
    assert told["00080020"] == "StudyDate is missing (type 2)"


async def test_a_client_that_expects_to_continue_is_refused_before_it_sends(service: Service) -> None:
    """RFC 9110 section 10.1.1, with curl."""
    async with served(service.app) as url:
        for headers, status in (
            (["Content-Type: application/pdf"], "415"),
            (["Content-Type: application/dicom", "Content-Length: 40000000"], "413"),
        ):
            assert await _curl(f"{url}/studies", *headers) == [status, "0"]
        dataset = part10(instance())
        assert await _curl(f"{url}/studies", "Content-Type: application/dicom", body=dataset) == [
            "200",
            str(len(dataset)),
        ]


async def _curl(url: str, *headers: str, body: bytes = b"x" * 2_000_000) -> list[str]:
    """Status and bytes sent."""
    options = [word for header in ("Expect: 100-continue", *headers) for word in ("-H", header)]
    process = await asyncio.create_subprocess_exec(
        "curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{size_upload}", "--expect100-timeout", "30",
        "--max-time", "60", "--data-binary", "@-", *options, url,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate(body)
    return output.decode().split()

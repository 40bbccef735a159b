"""The DICOMweb service as it runs: store, search and retrieve over real NATS, PostgreSQL and S3."""

import asyncio
import warnings
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from pydantic import ValidationError

from imaging_services.apps.dicomweb_ingestion.main import main
from imaging_services.apps.dicomweb_ingestion.settings import Settings
from imaging_services.domain.errors import SettingsError
from imaging_services.runtime import Lifecycle
from support.dicom_files import data_set_of, storable_files
from support.dicomweb_stack import dicomweb_stack, stow
from support.multipart import parts
from support.ports import a_free_port

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")  # pydicom's; requests' pool
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    # Of variants of one instance the first; what ends within an element is no data set and is not stored.
    FILES = [
        file
        for file in {file.identity: file for file in reversed(storable_files())}.values()
        if file.path.name != "rtplan_truncated.dcm"
    ]


@pytest.fixture(params=[True, False], ids=["postgres", "query api"])
def direct(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def store_all(client: httpx.AsyncClient, folder: Path) -> None:
    stored = await stow(client, FILES, folder)
    assert stored.status_code == 200, stored.text


async def test_everything_stored_is_found_and_comes_back(
    nats_server: Any, database: Any, s3_server: Any, bucket: str, tmp_path: Path, direct: bool
) -> None:
    async with (
        dicomweb_stack(nats_server, database, s3_server, bucket, tmp_path, direct=direct) as url,
        httpx.AsyncClient(base_url=f"{url}/dicomweb/", timeout=60) as client,
    ):
        await store_all(client, tmp_path)
        found = (await client.get("instances", params={"limit": 1000})).json()
        assert {item["00080018"]["Value"][0] for item in found} == {file.sop_instance_uid for file in FILES}
        urls = {item["00080018"]["Value"][0]: item["00081190"]["Value"][0] for item in found}
        for file in FILES:
            assert urls[file.sop_instance_uid] == f"{url}/dicomweb/{file.resource}"
            answer = await client.get(urls[file.sop_instance_uid])
            (part,) = parts(answer)
            assert data_set_of(part.body) == file.data_set, file.path.name
            metadata = await client.get(f"{urls[file.sop_instance_uid]}/metadata")
            assert metadata.json()[0]["00080018"]["Value"] == [file.sop_instance_uid]


async def test_pages_are_exact_and_say_when_there_is_more(
    nats_server: Any, database: Any, s3_server: Any, bucket: str, tmp_path: Path
) -> None:
    async with (
        dicomweb_stack(nats_server, database, s3_server, bucket, tmp_path, QUERY_DEFAULT_LIMIT=5) as url,
        httpx.AsyncClient(base_url=f"{url}/dicomweb/", timeout=60) as client,
    ):
        await store_all(client, tmp_path)
        everything = (await client.get("instances?limit=1000")).json()
        assert len(everything) == len(FILES)
        first = await client.get("instances")
        assert first.json() == everything[:5]
        assert first.headers["warning"].startswith("299 ")
        assert "additional results" in first.headers["warning"]
        pages = [(await client.get(f"instances?limit=7&offset={offset}")).json() for offset in range(0, len(FILES), 7)]
        assert [item for page in pages for item in page] == everything
        last = await client.get(f"instances?limit=7&offset={len(FILES) - 7}")
        assert (len(last.json()), "warning" in last.headers) == (7, False)
        beyond = await client.get(f"instances?offset={len(FILES)}")
        assert (beyond.status_code, beyond.json()) == (200, [])


async def test_searches_answer_as_the_standard_says(
    nats_server: Any, database: Any, s3_server: Any, bucket: str, tmp_path: Path
) -> None:
    async with (
        dicomweb_stack(nats_server, database, s3_server, bucket, tmp_path) as url,
        httpx.AsyncClient(base_url=f"{url}/dicomweb/", timeout=60) as client,
    ):
        await store_all(client, tmp_path)
        ct = next(file for file in FILES if file.path.name == "CT_small.dcm")
        (study,) = (await client.get("studies?PatientName=CompressedSamples^CT1&PatientID=1CT1")).json()
        assert study["0020000D"] == {"vr": "UI", "Value": [ct.study_instance_uid]}
        assert study["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "CompressedSamples^CT1"}]}
        assert study["00201208"] == {"vr": "IS", "Value": [1]}
        assert study["00081190"]["Value"] == [f"{url}/dicomweb/studies/{ct.study_instance_uid}"]
        (series,) = (await client.get(f"studies/{ct.study_instance_uid}/series?Modality=CT")).json()
        assert series["00081190"]["Value"] == [
            f"{url}/dicomweb/studies/{ct.study_instance_uid}/series/{ct.series_instance_uid}"
        ]
        for path in (f"studies/{ct.study_instance_uid}/instances", f"series/{ct.series_instance_uid}/instances"):
            prefix = "" if path.startswith("studies") else f"studies/{ct.study_instance_uid}/"
            (instance,) = (await client.get(f"{prefix}{path}?includefield=PixelSpacing")).json()
            assert instance["00081190"]["Value"] == [f"{url}/dicomweb/{ct.resource}"]
            assert instance["00280010"] == {"vr": "US", "Value": [128]}
            assert instance["00280030"] == {"vr": "DS", "Value": [0.661468, 0.661468]}
        two = await client.get(f"studies?StudyInstanceUID={ct.study_instance_uid},1.2.3")
        assert len(two.json()) == 1
        none = await client.get("studies?PatientName=NOBODY^HERE")
        assert (none.status_code, none.headers["content-type"], none.json()) == (200, "application/dicom+json", [])
        warned = await client.get("studies?EchoTime=3")
        assert (warned.status_code, "EchoTime" in warned.headers["warning"]) == (200, True)
        xml = await client.get(
            "studies?PatientID=1CT1", headers={"accept": 'multipart/related; type="application/dicom+xml"'}
        )
        assert b"NativeDicomModel" in parts(xml)[0].body


async def test_bad_searches_are_refused_by_name(
    nats_server: Any, database: Any, s3_server: Any, bucket: str, tmp_path: Path
) -> None:
    refused = {
        "PatientNam=DOE": "PatientNam",
        "StudyDate=20201332": "StudyDate",
        "StudyDate=yesterday": "StudyDate",
        "StudyDate=2020-01-01-2020-02-01": "StudyDate",
        "StudyTime=99": "StudyTime",
        "StudyInstanceUID=abc": "StudyInstanceUID",
        "limit=x": "limit",
        "offset=-3": "offset",
        "RequestAttributesSequence.Nonsense=7": "Nonsense",
        "TimezoneOffsetFromUTC=east": "TimezoneOffsetFromUTC",
    }
    async with (
        dicomweb_stack(nats_server, database, s3_server, bucket, tmp_path) as url,
        httpx.AsyncClient(base_url=f"{url}/dicomweb/", timeout=60) as client,
    ):
        for query, named in refused.items():
            answer = await client.get(f"studies?{query}")
            assert (answer.status_code, query) == (400, query)
            assert answer.headers["content-type"] == "application/problem+json"
            assert named in answer.json()["detail"]


async def test_dicomweb_client_stores_searches_and_retrieves(
    nats_server: Any, database: Any, s3_server: Any, bucket: str, tmp_path: Path
) -> None:
    port = a_free_port()
    # This client's Host header lacks the port, so URLs cannot be made from it.
    external = {"HTTP_PORT": port, "WADO_EXTERNAL_ENDPOINT": f"http://127.0.0.1:{port}/wado-rs"}
    async with dicomweb_stack(nats_server, database, s3_server, bucket, tmp_path, **external) as url:
        await asyncio.to_thread(_with_dicomweb_client, url)


def _with_dicomweb_client(url: str) -> None:
    client = DICOMwebClient(f"{url}/dicomweb")
    files = [file for file in FILES if file.path.name in {"CT_small.dcm", "JPEG2000.dcm", "examples_ybr_color.dcm"}]
    assert len(files) >= 2
    client.store_instances([pydicom.dcmread(file.path) for file in files])
    for file in files:
        study, series, instance = file.identity
        original = pydicom.dcmread(file.path)
        assert [
            item["0020000D"]["Value"][0]
            for item in client.search_for_studies(search_filters={"StudyInstanceUID": study})
        ] == [study]
        assert client.search_for_series(study)[0]["0020000E"]["Value"] == [series]
        assert client.search_for_instances(study, series, fields=["Rows"])[0]["00280010"]["Value"] == [original.Rows]
        assert client.search_for_studies(search_filters={"PatientName": "NOBODY"}) == []
        retrieved = client.retrieve_instance(study, series, instance, media_types=(("application/dicom", "*"),))
        assert retrieved.PixelData == original.PixelData
        assert [
            item.SOPInstanceUID for item in client.retrieve_study(study, media_types=(("application/dicom", "*"),))
        ] == [instance]
        assert client.retrieve_instance_metadata(study, series, instance)["00080018"]["Value"] == [instance]
        frames = client.retrieve_instance_frames(study, series, instance, [1])
        native = not original.file_meta.TransferSyntaxUID.is_compressed
        assert frames[0] == (original.PixelData[: len(frames[0])] if native else _first_frame(original))
    uri = client.retrieve_instance_metadata(*files[0].identity)["7FE00010"]["BulkDataURI"]
    assert client.retrieve_bulkdata(uri)[0]


def _first_frame(dataset: pydicom.Dataset) -> bytes:
    return next(
        pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1))
    )


@pytest.mark.parametrize(("role", "posts", "gets"), [("stow", 400, 405), ("wado", 405, 200)])
async def test_one_role_can_be_served_alone(
    database: Any, s3_server: Any, nats_server: Any, bucket: str, tmp_path: Path, role: str, posts: int, gets: int
) -> None:
    async with (
        dicomweb_stack(nats_server, database, s3_server, bucket, tmp_path, DICOMWEB_ROLE=role) as url,
        httpx.AsyncClient(timeout=60) as client,
    ):
        multipart = {"content-type": 'multipart/related; type="application/dicom"'}
        assert (await client.post(f"{url}/dicomweb/studies", headers=multipart)).status_code == posts
        assert (await client.get(f"{url}/dicomweb/studies")).status_code == gets
        assert (await client.post(f"{url}/stow-rs/studies", headers=multipart)).status_code == (
            400 if role == "stow" else 404
        )
        assert (await client.get(f"{url}/wado-rs/studies")).status_code == (200 if role == "wado" else 404)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"QUERY_ENDPOINT": "http://127.0.0.1:1/query"}, "K_SINK"),
        ({"K_SINK": "http://127.0.0.1:1/"}, "BUCKET_CONFIG_PATH"),
        ({"DICOMWEB_ROLE": "wado", "HTTP_CORS_ORIGINS": "https://viewer.example.org/"}, "HTTP_CORS_ORIGINS"),
        ({"DICOMWEB_ROLE": "wado", "QUERY_DEFAULT_LIMIT": 10, "QUERY_MAX_LIMIT": 5}, "QUERY_MAX_LIMIT"),
    ],
)
async def test_missing_settings_stop_the_start(settings: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=named):
        await main(Settings(BUCKET_CONFIG_PATH=tmp_path / "absent", **settings), Lifecycle())


async def test_reading_needs_a_manifest(s3_server: Any, bucket: str, tmp_path: Path) -> None:
    space = tmp_path / "space"
    (tmp_path / "keys").mkdir()
    space.mkdir()
    (tmp_path / "keys" / "LOCAL_STORAGE_PATH").write_text(str(space))
    with pytest.raises(SettingsError, match="QUERY_ENDPOINT"):
        await main(Settings(BUCKET_CONFIG_PATH=tmp_path / "keys", DICOMWEB_ROLE="wado"), Lifecycle())


def test_half_a_database_is_refused() -> None:
    with pytest.raises(ValidationError, match="DB_NAME"):
        Settings(DB_HOST="127.0.0.1")

"""The settings of the DICOMweb service say which stored instances are urgent; a series stays together in a request."""

import json
from pathlib import Path

import httpx
import pydicom
import pytest
from fastapi import FastAPI

from imaging_services.adapters.memory.event_sink import MemoryEventSink
from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.apps.dicomweb_ingestion.routers import routers
from imaging_services.apps.dicomweb_ingestion.settings import Settings
from imaging_services.domain.events.envelope import is_urgent
from support.instances import instance, part10

BOUNDARY = "part-boundary"
BY_PRIORITY = {"STOW_URGENT_PROCEDURE_PRIORITIES": "stat, HIGH"}


def requested(priority: str) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.RequestedProcedurePriority = priority
    return item


class Service:
    """STOW-RS on memory as its settings make it."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self._sink = MemoryEventSink()
        settings = Settings(DICOMWEB_ROLE="stow", SPOOL_DIR=folder, **variables)
        self._app = FastAPI()
        for router in routers(settings, MemoryObjectStore(), self._sink, None)["/stow-rs"]:
            self._app.include_router(router)

    async def store(self, *datasets: pydicom.Dataset) -> list[bool]:
        """Whether each instance is urgent, stored in one request."""
        return await self._store("application/dicom", list(map(part10, datasets)), datasets)

    async def store_metadata(self, *datasets: pydicom.Dataset) -> list[bool]:
        """The same, as metadata in JSON."""
        models = json.dumps([one.to_json_dict() for one in datasets]).encode()
        return await self._store("application/dicom+json", [models], datasets)

    async def _store(self, media_type: str, parts: list[bytes], datasets: tuple[pydicom.Dataset, ...]) -> list[bool]:
        head = f"--{BOUNDARY}\r\nContent-Type: {media_type}\r\n\r\n".encode()
        body = b"".join(head + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()
        content_type = f'multipart/related; type="{media_type}"; boundary={BOUNDARY}'
        transport = httpx.ASGITransport(app=self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.post("/studies", content=body, headers={"Content-Type": content_type})
        assert answer.status_code == 200, answer.text
        by_uid = {uid: is_urgent(event) for event in self._sink.events for uid in _uids(event.data)}
        return [by_uid[str(one.SOPInstanceUID)] for one in datasets]


def _uids(data: bytes) -> list[str]:
    elements = json.loads(data)["image"]["elements"]
    return [one["value"] for one in elements if (one["group"], one["element"]) == ("0008", "0018")]


@pytest.mark.parametrize(
    ("variables", "urgent"),
    [
        ({}, [False, False, False]),
        ({"STOW_URGENT_MODALITIES": "xa,US"}, [True, False, False]),
        (BY_PRIORITY, [False, True, True]),
    ],
    ids=["none", "modality", "procedure"],
)
async def test_each_setting_alone(tmp_path: Path, variables: dict[str, str], urgent: list[bool]) -> None:
    datasets = [
        instance(Modality="XA"),
        instance(RequestedProcedurePriority="STAT"),
        instance(RequestAttributesSequence=[requested("ROUTINE"), requested("HIGH")]),
    ]
    assert await Service(tmp_path, **variables).store(*datasets) == urgent


async def test_a_series_stays_together_within_a_request(tmp_path: Path) -> None:
    service = Service(tmp_path, **BY_PRIORITY, STOW_CONCURRENCY="1")
    stat = instance(SeriesInstanceUID="1.2.3", RequestedProcedurePriority="STAT")
    later, other = instance(SeriesInstanceUID="1.2.3"), instance()
    assert await service.store(stat, later, other) == [True, True, False]
    assert await service.store(instance(SeriesInstanceUID="1.2.3")) == [False]


async def test_instances_of_metadata_may_be_urgent_as_well(tmp_path: Path) -> None:
    service = Service(tmp_path, **BY_PRIORITY)
    datasets = [instance(PixelData=None), instance(PixelData=None, RequestedProcedurePriority="STAT")]
    assert await service.store_metadata(*datasets) == [False, True]

"""A DICOMweb service for tests: the application on a real HTTP server, and what is stored behind it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from imaging_services.adapters.http.guard import Guard
from imaging_services.adapters.http.server import serve
from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.apps.dicomweb_ingestion.app import build_app, prefixes
from imaging_services.apps.dicomweb_ingestion.qido import SearchLimits, qido_router
from imaging_services.apps.dicomweb_ingestion.wado import RetrieveLimits, wado_router
from imaging_services.domain.dicom.part10 import file_meta
from imaging_services.domain.manifest.attributes import UNIQUE_KEYS
from imaging_services.domain.manifest.query import DicomJson, InstanceLocation, Query, Scope
from imaging_services.domain.ports import ManifestQuery, ObjectStore
from support.dicom_files import DicomFile

PROVIDER = "north"


@dataclass
class Recorded:
    """A manifest that answers with what a test put in: ``locations`` for retrieval, ``results`` for searches."""

    locations: list[InstanceLocation] = field(default_factory=list)
    results: list[DicomJson] = field(default_factory=list)
    asked: list[Query] = field(default_factory=list)

    async def search(self, query: Query) -> list[DicomJson]:
        self.asked.append(query)
        start = query.offset
        if query.after is not None:
            keys = [tuple(one[tag]["Value"][0] for tag in UNIQUE_KEYS[query.level]) for one in self.results]
            start = keys.index(query.after) + 1
        return self.results[start:][: query.limit]

    async def locate(self, scope: Scope) -> list[InstanceLocation]:
        return [one for one in self.locations if _within(one, scope)]

    async def close(self) -> None:
        """Nothing is open."""


def _within(one: InstanceLocation, scope: Scope) -> bool:
    return (
        one.study_instance_uid == scope.study_instance_uid
        and scope.series_instance_uid in (None, one.series_instance_uid)
        and scope.sop_instance_uid in (None, one.sop_instance_uid)
        and scope.provider in (None, one.provider)
    )


def part10_of(file: DicomFile) -> bytes:
    """The file as this product stores it."""
    meta = file_meta(
        sop_class_uid=file.sop_class_uid,
        sop_instance_uid=file.sop_instance_uid,
        transfer_syntax=file.transfer_syntax_uid,
    )
    return meta + file.data_set


async def keep(store: ObjectStore, recorded: Recorded, file: DicomFile, *, told: bool = True) -> InstanceLocation:
    """Store a file and record it; ``told``: the manifest knows its size."""
    content = part10_of(file)
    digest = hashlib.sha256(content).hexdigest()
    await store.put(f"{digest}.dcm", content)
    location = InstanceLocation(
        study_instance_uid=file.study_instance_uid,
        series_instance_uid=file.series_instance_uid,
        sop_instance_uid=file.sop_instance_uid,
        sop_class_uid=file.sop_class_uid,
        transfer_syntax_uid=file.transfer_syntax_uid,
        provider=PROVIDER,
        object_name=f"{digest}.dcm",
        bucket_name=None,
        size=len(content) if told else None,
        digest=digest,
        pixel_data_offset=None,
        last_modified=datetime(2026, 11, 21, 3, 30, tzinfo=UTC),
    )
    recorded.locations.append(location)
    return location


def reading_app(
    manifest: ManifestQuery,
    store: ObjectStore,
    *,
    external_endpoint: str | None = None,
    search_limits: SearchLimits | None = None,
    retrieve_limits: RetrieveLimits | None = None,
    concurrency: int = 0,
) -> Any:
    """QIDO-RS and WADO-RS over a manifest and a storage space."""
    read = [
        qido_router(manifest, PROVIDER, external_endpoint=external_endpoint, limits=search_limits),
        wado_router(manifest, store, PROVIDER, external_endpoint=external_endpoint, limits=retrieve_limits),
    ]
    return Guard(build_app(prefixes(None, read)), concurrency=concurrency)


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """Run an application on a free port; gives its root URL."""
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(app, "127.0.0.1", 0, stop, drain_seconds=2, listening=port.set_result))
    try:
        yield f"http://127.0.0.1:{await port}"
    finally:
        stop.set()
        await server


async def kept(files: Iterable[DicomFile], *, told: bool = True) -> tuple[MemoryObjectStore, Recorded]:
    """Files in a storage space and a manifest in memory."""
    store, recorded = MemoryObjectStore(), Recorded()
    for file in files:
        await keep(store, recorded, file, told=told)
    return store, recorded

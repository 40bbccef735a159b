"""``DELETE`` on the DICOMweb service: over real NATS, PostgreSQL and S3, and its races on memory."""

import asyncio
import io
import random
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from imaging_services.adapters.memory.manifest import MemoryManifest
from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.adapters.memory.spools import MemorySpools
from imaging_services.adapters.s3.space import open_space
from imaging_services.apps.dicomweb_ingestion.delete import ObjectRemover
from imaging_services.apps.dicomweb_ingestion.settings import Settings
from imaging_services.domain.errors import BackendUnavailable, SettingsError
from imaging_services.domain.ingest.ingest import Ingest
from imaging_services.domain.manifest.deletion import deletion_events
from imaging_services.domain.manifest.query import Scope
from imaging_services.domain.ports import ObjectStore
from support.dicomweb import PROVIDER
from support.dicomweb_in_memory import RecordingSink, service_in_memory
from support.dicomweb_stack import dicomweb_stack
from support.events import eventually
from support.instances import blocks, encoded, instance, part10

STUDY = "1.2.826.0.1.1"


def study_of(count: int) -> list[Any]:
    return [
        instance(StudyInstanceUID=STUDY, SeriesInstanceUID=f"{STUDY}.{n % 2 + 1}", SOPInstanceUID=f"{STUDY}.9.{n}")
        for n in range(count)
    ]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")  # pydicom's; requests' pool
async def test_what_is_deleted_is_gone_and_can_be_stored_again(
    nats_server: Any, database: Any, s3_server: Any, bucket: str, tmp_path: Path
) -> None:
    datasets = [pydicom.dcmread(io.BytesIO(part10(dataset))) for dataset in study_of(5)]
    async with (
        dicomweb_stack(nats_server, database, s3_server, bucket, tmp_path, direct=False, DICOMWEB_DELETE=True) as url,
        httpx.AsyncClient(base_url=f"{url}/dicomweb/studies/", timeout=60) as client,
    ):
        space = open_space(tmp_path / "bucket", None)
        viewer = DICOMwebClient(f"{url}/dicomweb")
        await asyncio.to_thread(viewer.store_instances, datasets)
        await objects_are(space, 5)
        series = f"{STUDY}/series/{STUDY}.1"
        assert (await client.delete(series)).status_code == 204
        for resource in (series, f"{series}/metadata", f"{series}/instances/{STUDY}.9.0"):
            assert (await client.get(resource)).status_code == 404
        assert (await client.delete(series)).status_code == 404
        found = await asyncio.to_thread(viewer.search_for_instances, STUDY)
        assert {one["00080018"]["Value"][0] for one in found} == {f"{STUDY}.9.1", f"{STUDY}.9.3"}
        await objects_are(space, 2)
        await asyncio.to_thread(viewer.store_instances, datasets)
        assert len(await asyncio.to_thread(viewer.retrieve_study, STUDY)) == 5
        assert (await client.delete(f"{STUDY}/series/{STUDY}.2/instances/{STUDY}.9.1")).status_code == 204
        assert (await client.delete(STUDY)).status_code == 204
        assert (await client.get(STUDY)).status_code == 404
        assert (await client.get(url + "/dicomweb/studies")).json() == []
        await objects_are(space, 0)
        assert (await client.delete("no-uid")).status_code == 400
    await space.close()


async def objects_are(space: ObjectStore, count: int) -> None:
    """Wait until the storage space holds so many objects."""
    async with asyncio.timeout(60):
        while len([one async for one in space.list()]) != count:
            await asyncio.sleep(0.02)


async def test_nothing_is_deleted_unless_it_is_allowed(tmp_path: Path) -> None:
    transport = httpx.ASGITransport(app=service_in_memory(tmp_path))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.delete(f"/dicomweb/studies/{STUDY}")).status_code == 405


async def test_the_part_that_reads_may_delete_without_storing(tmp_path: Path) -> None:
    served = service_in_memory(tmp_path, role="wado", DICOMWEB_DELETE=True)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=served), base_url="http://test") as client:
        for prefix in ("/dicomweb", "/wado-rs"):
            assert (await client.delete(f"{prefix}/studies/{STUDY}")).status_code == 404
            assert (await client.post(f"{prefix}/studies")).status_code == 405


def test_deletion_needs_somebody_who_says_that_it_is_recorded() -> None:
    with pytest.raises(SettingsError, match="DICOMWEB_DELETE"):
        Settings(DICOMWEB_DELETE=True, K_SINK="http://broker.example.org").check()
    with pytest.raises(SettingsError, match="DICOMWEB_DELETE"):
        Settings(DICOMWEB_DELETE=True, EVENTS_NATS_URL="nats://127.0.0.1", DICOMWEB_ROLE="stow").check()
    Settings(DICOMWEB_DELETE=True, EVENTS_NATS_URL="nats://127.0.0.1", DICOMWEB_ROLE="wado").check()


class Wavering:
    """A storage space whose calls take as long as chance has it."""

    def __init__(self, space: MemoryObjectStore, chance: random.Random) -> None:
        self._space, self._chance = space, chance

    def __getattr__(self, name: str) -> Any:
        return getattr(self._space, name)

    async def put(self, key: str, body: Any) -> None:
        await self._pause()
        await self._space.put(key, body)
        await self._pause()

    async def delete(self, key: str) -> None:
        await self._pause()
        await self._space.delete(key)
        await self._pause()

    async def _pause(self) -> None:
        for _ in range(self._chance.randrange(6)):
            await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(20))
async def test_the_manifest_never_names_an_object_that_is_not_there(seed: int) -> None:
    """Storing, deleting and removing the same instance at once, by several replicas."""
    chance = random.Random(seed)
    manifest, objects = MemoryManifest("test"), MemoryObjectStore()
    space: Any = Wavering(objects, chance)
    ingest = Ingest(space, RecordingSink(manifest), MemorySpools(), provider=PROVIDER, source="test")
    removers = [ObjectRemover(manifest, space, PROVIDER) for _ in range(2)]
    content = encoded(instance(StudyInstanceUID=STUDY))

    async def check() -> None:
        for one in await manifest.locate(Scope(STUDY)):
            assert one.object_name in objects.objects

    async def store() -> None:
        for _ in range(8):
            await ingest.receive(blocks(content), transfer_syntax="1.2.840.10008.1.2.1")
            await check()

    async def delete() -> None:
        for _ in range(8):
            for event in deletion_events("test", PROVIDER, await manifest.locate(Scope(STUDY))):
                await manifest.record([event])
            await check()
            await asyncio.sleep(0)

    async def remove(remover: ObjectRemover) -> None:
        for _ in range(16):
            await remover.remove_some()
            await check()
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        for work in (store(), store(), delete(), *map(remove, removers)):
            tasks.create_task(work)
    while await removers[0].remove_some():
        pass
    assert set(objects.objects) == {one.object_name for one in await manifest.locate(Scope(STUDY))}


async def test_removal_is_tried_again_when_the_space_fails() -> None:
    manifest, space = MemoryManifest("test"), MemoryObjectStore()
    ingest = Ingest(space, RecordingSink(manifest), MemorySpools(), provider=PROVIDER, source="test")
    await ingest.receive(blocks(encoded(instance(StudyInstanceUID=STUDY))), transfer_syntax="1.2.840.10008.1.2.1")
    remover = ObjectRemover(manifest, space, PROVIDER)
    async with remover.running():
        await manifest.record(list(deletion_events("test", PROVIDER, await manifest.locate(Scope(STUDY)))))
        space.failure = BackendUnavailable("S3 is away")
        with pytest.raises(BackendUnavailable):
            await remover.remove_some()
        remover.wake()
        await asyncio.sleep(0)
        assert space.objects
        space.failure = None
        remover.wake()
        await eventually(lambda: not space.objects)

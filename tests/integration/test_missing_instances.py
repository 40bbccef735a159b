"""What DICOMweb says of instances whose objects are gone, once an audit has marked them."""

import uuid
from pathlib import Path
from typing import Any

import httpx

from imaging_services.adapters.postgres.audit import PostgresAudit
from imaging_services.domain.audit.model import Role
from support.archive import PROVIDER, opened_space
from support.dicomweb_stack import dicomweb_stack
from support.instances import instance, part10
from support.manifests import migrated_pool
from support.multipart import parts

STUDY = f"2.25.{uuid.uuid4().int}"


def file(number: int) -> bytes:
    return part10(
        instance(StudyInstanceUID=STUDY, SeriesInstanceUID=f"{STUDY}.1", SOPInstanceUID=f"{STUDY}.1.{number}")
    )


async def test_marked_instances_are_gone_until_they_are_sent_again(
    request: Any, nats_server: Any, database: Any, s3_server: Any, bucket: str, tmp_path: Path
) -> None:
    space = opened_space("s3", request, tmp_path)
    async with (
        migrated_pool(database) as pool,
        dicomweb_stack(nats_server, database, s3_server, bucket, tmp_path) as url,
        httpx.AsyncClient(base_url=f"{url}/dicomweb/", timeout=60) as client,
    ):

        async def store(number: int) -> None:
            headers = {"content-type": "application/dicom"}
            assert (await client.post("studies", content=file(number), headers=headers)).status_code == 200

        async def status(path: str) -> int:
            answer = await client.get(path, headers={"accept": "*/*"})
            return answer.status_code

        for number in range(3):
            await store(number)
        audited = PostgresAudit(pool, PROVIDER, space.bucket_name)
        entries = [one async for page in audited.entries() for one in page]
        keys = await audited.instances(entries)
        (gone,) = [one for one in entries if keys[one.instance_id or 0][2] == f"{STUDY}.1.1"]
        await space.delete(gone.object_name)
        await audited.mark_missing({gone.instance_id or 0: gone.object_name})

        series = f"studies/{STUDY}/series/{STUDY}.1"
        for resource in ("", "/metadata", "/frames/1", "/rendered"):
            assert await status(f"{series}/instances/{STUDY}.1.1{resource}") == 410
            assert await status(f"{series}/instances/{STUDY}.1.0{resource}") == 200
        answer = await client.get(series)
        assert (answer.status_code, len(parts(answer))) == (206, 2)
        found = (await client.get(f"{series}/instances?includefield=InstanceAvailability")).json()
        availability = {one["00080018"]["Value"][0][-2:]: one["00080056"]["Value"][0] for one in found}
        assert availability == {".0": "ONLINE", ".1": "UNAVAILABLE", ".2": "ONLINE"}

        await store(1)
        assert await status(f"{series}/instances/{STUDY}.1.1") == 200
        answer = await client.get(series)
        assert (answer.status_code, len(parts(answer))) == (200, 3)
        assert {one.role async for page in audited.entries() for one in page} == {Role.INSTANCE}
    await space.close()

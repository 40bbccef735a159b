"""``imaging rebuild``: a manifest from the objects of a storage space alone is what it was."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import EncapsulatedPDFStorage, ImplicitVRLittleEndian

from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.adapters.postgres.rebuild import PostgresRebuild
from imaging_services.apps.dicomweb_ingestion.delete import ObjectRemover
from imaging_services.domain.errors import BackendUnavailable, Conflict, Superseded
from imaging_services.domain.events.envelope import DICOM_AVAILABLE, IMAGE_STORED, STUDY_REVISION
from imaging_services.domain.manifest.deletion import object_key
from imaging_services.domain.manifest.query import Level, Query, Scope
from support.archive import PROVIDER, Archive, archive, opened_space
from support.instances import instance
from support.manifests import migrated_pool, published
from support.servers import Postgres, fresh_database

STUDIES = ("1.2.1", "1.2.2", "1.2.3")


@pytest.fixture
async def empty(postgres_server: Postgres) -> AsyncIterator[Archive]:
    """A manifest without a space."""
    with fresh_database(postgres_server) as database:
        async with migrated_pool(database) as pool:
            yield Archive(MemoryObjectStore(), pool)


@pytest.fixture
async def there(request: pytest.FixtureRequest, database: Any, tmp_path: Path) -> AsyncIterator[Archive]:
    """An archive in a folder, or on the kind of space that the test names."""
    async with archive(database, opened_space(getattr(request, "param", "folder"), request, tmp_path)) as opened:
        yield opened


def one(study: str, series: int, number: int, **attributes: object) -> pydicom.Dataset:
    uids = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.{series}"}
    return instance(
        **uids, SOPInstanceUID=f"{study}.{series}.{number}", SeriesNumber=series, InstanceNumber=number, **attributes
    )


async def fill(there: Archive, pause: float) -> None:
    """What makes a manifest more than a list: versions, deletions, contradictions, headers of all lengths."""
    replaced = one("1.2.1", 1, 1, PatientID="REPLACED", StudyDescription="said first")
    await there.store(replaced)
    deleted = one("1.2.1", 1, 2)
    await there.store(deleted)
    await there.delete("1.2.1")
    for name in [each.object_name for each in await there.manifest.waiting_objects(PROVIDER)]:
        await there.space.delete(name)
    await there.store(one("1.2.1", 1, 1, PatientID="REPLACED", StudyDescription="said first"))
    await there.store(deleted)  # in an object of another name
    await asyncio.sleep(pause)
    await there.store(one("1.2.1", 1, 1, PatientID="LAST", StudyDescription="said later", Rows=4, PixelData=bytes(64)))
    for number in range(3, 6):
        await there.store(one("1.2.1", 2, number, PatientID="LAST", PatientName="Other^Name"))
    header = "x" * 60_000  # behind the first look, and behind the second
    long = one("1.2.2", 1, 1, TextValue=header, ImageComments="behind")
    await there.store(long)
    longer = one("1.2.2", 1, 2, ImageComments="behind")
    longer.add_new(0x00190010, "LO", "PRIVATE")
    longer.add_new(0x00191001, "OB", bytes(700_000))
    await there.store(longer)
    await there.store(one("1.2.2", 2, 1), syntax=ImplicitVRLittleEndian)
    document = one(
        "1.2.3", 1, 1, Modality="DOC", SOPClassUID=EncapsulatedPDFStorage, EncapsulatedDocument=bytes(900_000)
    )
    for keyword in ("PixelData", "Rows", "Columns"):
        delattr(document, keyword)
    document.MIMETypeOfEncapsulatedDocument = "application/pdf"
    await there.store(document)


async def answers(archive: Archive) -> dict[str, Any]:
    """Every row of every search, and where every instance lies."""
    rows: dict[str, Any] = {
        level: await archive.manifest.search(Query(level, provider=PROVIDER, include_all=True)) for level in Level
    }
    places = [place for study in STUDIES for place in await archive.manifest.locate(Scope(study, provider=PROVIDER))]
    rows["places"] = [
        {name: getattr(place, name) for name in place.__slots__ if name != "last_modified"} for place in places
    ]
    return rows


def comparable(rows: dict[str, Any], in_order: bool) -> dict[str, Any]:
    return rows if in_order else {kind: sorted(map(repr, each)) for kind, each in rows.items()}


@pytest.mark.parametrize("there", ["folder", "s3"], indirect=True)
async def test_searches_and_places_are_what_they_were(there: Archive, empty: Archive, tmp_path: Path) -> None:
    in_order = not there.space.bucket_name
    # S3 tells the time of an object in whole seconds, a folder exactly.
    await fill(there, pause=0 if in_order else 1.1)
    before = await answers(there)
    assert [len(before[level]) for level in (Level.STUDY, Level.SERIES, Level.IMAGE)] == [3, 5, 9]
    progress = await empty.rebuild(there.space, folder=tmp_path)
    assert (progress.objects, progress.failed) == (12, 0)
    for _ in range(2):
        assert comparable(await answers(empty), in_order) == comparable(before, in_order)
        assert (await empty.rebuild(there.space)).failed == 0
    empty.space = there.space
    summary = await empty.audit()
    assert [one.kind for one in empty.findings] == ["undeleted"] * 2
    assert summary.roles == {"instance": 9, "replaced": 1}
    assert await empty.manifest.waiting_objects(PROVIDER) == []
    await empty.audit(repair=True)
    assert {one.object_name for one in await empty.manifest.waiting_objects(PROVIDER)} == {
        one.key for one in empty.findings
    }


async def test_nothing_is_announced_but_what_comes_later(there: Archive, empty: Archive) -> None:
    for number in range(3):
        await there.store(one("1.2.1", 1, number))
    await empty.rebuild(there.space)
    assert await published(empty.manifest) == []
    assert await empty.manifest.revise(timedelta(0)) == 0
    empty.space = there.space
    await empty.store(one("1.2.1", 1, 9))
    await empty.store(one("1.2.2", 1, 1))
    assert await empty.manifest.revise(timedelta(0)) == 2
    events = await published(empty.manifest)
    assert [event.type for event in events] == [*[IMAGE_STORED, DICOM_AVAILABLE] * 2, STUDY_REVISION, STUDY_REVISION]
    rebuilt, fresh = (json.loads(event.data) for event in events[-2:])
    assert (rebuilt["revision"], rebuilt["changeSet"]["additions"]) == (1001, ["1.2.1.1/1.2.1.1.9"])
    assert len(rebuilt["study"]["series"][0]["instances"]) == 4
    assert fresh["revision"] == 0


async def test_everything_is_announced_when_asked_to(there: Archive, empty: Archive) -> None:
    stored = [await there.store(one("1.2.1", 1, number)) for number in range(3)]
    told = {(event.type, event.id) for event in await published(there.manifest)}
    await empty.rebuild(there.space, announce=True, first_revision=7)
    assert await empty.manifest.revise(timedelta(0)) == 1
    events = await published(empty.manifest)
    assert {(event.type, event.id) for event in events[:-1]} == told
    revision = json.loads(events[-1].data)
    assert (revision["revision"], len(revision["changeSet"]["additions"])) == (7, len(stored))


async def test_what_comes_meanwhile_is_announced(there: Archive, empty: Archive) -> None:
    for number in range(20):
        await there.store(one("1.2.1", 1, number))
    live = Archive(there.space, empty.pool)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(empty.rebuild(there.space))
        for number in range(20, 30):
            await live.store(one("1.2.2", 1, number))
    assert await empty.manifest.revise(timedelta(0)) == 1
    revision = json.loads((await published(empty.manifest))[-1].data)
    assert revision["study"]["studyInstanceUID"] == "1.2.2"
    assert len(await empty.manifest.locate(Scope("1.2.1"))) == 20


async def test_it_goes_on_where_it_broke_off(there: Archive, empty: Archive) -> None:
    class Failing(MemoryObjectStore):
        left = 4

        async def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            self.left -= 1
            if self.left < 0:
                raise BackendUnavailable("away")
            return await super().get(key, start, length)

    space = Failing()
    there.space = space
    for number in range(8):
        await there.store(one("1.2.1", 1, number))
    with pytest.raises(BackendUnavailable, match="away"):
        await empty.rebuild(space)
    space.left = 100
    half = sorted([info.last_modified async for info in space.list()])
    progress = await empty.rebuild(space, since=half[4])
    assert (progress.objects, progress.recorded) == (4, 4)


async def test_what_cannot_be_recorded_is_told(there: Archive, empty: Archive) -> None:
    good = await there.store(one("1.2.1", 1, 1))
    junk = good.key[::-1][4:] + ".dcm"
    await there.space.put(junk, b"junk")
    await there.space.put("notes.txt", b"by hand")
    trial = await empty.rebuild(there.space, dry_run=True)
    assert (trial.done, trial.recorded, trial.failed) == (1, 0, 1)
    assert await empty.manifest.locate(Scope("1.2.1")) == []
    progress = await empty.rebuild(there.space)
    assert (progress.recorded, progress.failed, progress.foreign) == (1, 1, 1)
    assert empty.refused == {junk: "neither a DICOM file nor a data set"}


async def test_what_is_recorded_already_stays_as_it_is(there: Archive) -> None:
    now = datetime.now(UTC)
    newer = await there.store(one("1.2.1", 1, 1, PatientID="newer"), at=now - timedelta(minutes=5))
    with pytest.raises(Superseded):
        await there.store(one("1.2.1", 1, 1, PatientID="older"), at=now - timedelta(hours=1))
    await there.store(one("1.2.1", 1, 1, PatientID="never recorded"), recorded=False)
    deleted = await there.store(one("1.2.2", 1, 1), recorded=False)
    await there.store(one("1.2.2", 1, 1, PatientID="corrected"))
    await there.delete("1.2.2")
    assert await there.manifest.revise(timedelta(0)) == 2
    await published(there.manifest)
    with pytest.raises(Conflict, match="a rebuild is for an empty one"):
        await there.rebuild(there.space, go_on=False)
    progress = await there.rebuild(there.space)
    assert (progress.recorded, progress.left_out, progress.failed) == (1, 4, 0)
    (place,) = await there.manifest.locate(Scope("1.2.1"))
    assert place.object_name == newer.key
    assert await there.manifest.locate(Scope("1.2.2")) == []
    assert (await published(there.manifest), await there.manifest.revise(timedelta(0))) == ([], 0)
    await there.audit()
    assert there.found() == {("unknown", deleted.key)}


async def test_a_rebuild_that_broke_off_may_be_run_again(there: Archive, empty: Archive) -> None:
    """The version that it had recorded is no reason to leave out the one that was written later."""
    await there.store(one("1.2.1", 1, 1, PatientID="first"))
    begun = PostgresRebuild(empty.pool, "processor.test", announce=False, first_revision=1000)
    await begun.begin(PROVIDER)
    await empty.store(one("1.2.1", 1, 1, PatientID="first"), at=datetime.now(UTC) - timedelta(hours=1))
    last = await there.store(one("1.2.1", 1, 1, PatientID="last"))
    assert (await empty.rebuild(there.space, go_on=False)).recorded == 2
    (place,) = await empty.manifest.locate(Scope("1.2.1"))
    assert place.object_name == last.key
    with pytest.raises(Conflict, match="holds instances of 'north'"):
        await empty.rebuild(there.space, go_on=False)


async def test_nothing_is_removed_for_an_object_that_nobody_has_read(there: Archive, empty: Archive) -> None:
    stored = await there.store(one("1.2.1", 1, 1))
    content = await there.space.get(stored.key)
    later = object_key(stored.digest, 1)
    await there.space.put(later, content[:-1] + bytes([content[-1] ^ 1]))
    empty.space = there.space
    for _ in range(2):
        await empty.rebuild(there.space)
        await empty.audit(repair=True)
        assert empty.found() == {("undeleted", stored.key), ("wrong-digest", later)}
        assert "not intact" in empty.of(stored.key).reason
        assert await ObjectRemover(empty.manifest, there.space, PROVIDER).remove_some() == 0


async def test_a_study_that_changes_at_the_end_keeps_its_revision(there: Archive, empty: Archive) -> None:
    await there.store(one("1.2.1", 1, 1))
    manifest = PostgresRebuild(empty.pool, "processor.test", announce=False, first_revision=1000)
    async with empty.pool.connection() as connection, empty.pool.connection() as other:
        await empty.rebuild(there.space)
        await connection.execute("UPDATE dicom_study SET revision = 1000")
        async with asyncio.TaskGroup() as tasks, connection.transaction():  # as recording does
            await connection.execute("SELECT FROM dicom_study FOR NO KEY UPDATE")
            await connection.execute("INSERT INTO study_change SELECT id, now() FROM dicom_study")
            tasks.create_task(manifest.finish(PROVIDER))
            waiting: Any = None
            while not waiting:
                cursor = await other.execute(
                    "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
                waiting = await cursor.fetchall()
        cursor = await connection.execute("SELECT revision FROM dicom_study")
        assert await cursor.fetchone() == (1000,)

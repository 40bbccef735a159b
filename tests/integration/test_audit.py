"""``imaging audit`` on real PostgreSQL and real storage spaces: every finding, every repair, under traffic."""

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.apps.dicomweb_ingestion.delete import ObjectRemover
from imaging_services.domain.errors import BackendUnavailable, Conflict
from imaging_services.domain.events.envelope import DICOM_AVAILABLE, IMAGE_STORED
from imaging_services.domain.manifest.query import Scope
from support.archive import PROVIDER, Archive, archive, opened_space
from support.instances import instance
from support.manifests import published

UIDS = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.1", "SOPInstanceUID": "1.2.3.1.1"}


@pytest.fixture
async def there(request: pytest.FixtureRequest, database: Any, tmp_path: Path) -> AsyncIterator[Archive]:
    """An archive on S3, or on the kind of space that the test names."""
    async with archive(database, opened_space(getattr(request, "param", "s3"), request, tmp_path)) as opened:
        yield opened


def named(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() + ".dcm"


@pytest.mark.parametrize("there", ["folder", "s3", "azure"], indirect=True)
async def test_every_finding_and_its_repair(there: Archive) -> None:
    datasets = [instance() for _ in range(3)]
    missing, short, broken = [await there.store(dataset) for dataset in datasets]
    content = await there.space.get(broken.key)
    await there.space.delete(missing.key)
    await there.space.put(short.key, b"short")
    await there.space.put(broken.key, content[:-1] + bytes([content[-1] ^ 1]))
    unknown = await there.store(instance(), recorded=False)
    await there.space.put(named(b"junk"), b"junk")
    await there.space.put("notes.txt", b"by hand")
    for version in ("first", "last"):
        await there.store(instance(**UIDS, PatientID=version))
    waiting, removed = [await there.store(instance()) for _ in range(2)]
    await there.delete(removed.study_instance_uid)
    await there.manifest.objects_removed(PROVIDER, await there.manifest.waiting_objects(PROVIDER))
    await there.delete(waiting.study_instance_uid)

    beyond_repair = {
        ("wrong-size", short.key),
        ("wrong-digest", broken.key),
        ("unknown", named(b"junk")),
        ("foreign", "notes.txt"),
    }
    repairable = {("missing", missing.key), ("unknown", unknown.key), ("undeleted", removed.key)}
    for repair in (False, True):
        summary = await there.audit(repair=repair)
        assert there.found() == beyond_repair | repairable
        assert {(one.kind, one.key) for one in there.findings if one.repaired} == (repairable if repair else set())
        assert (summary.objects, summary.instances) == (9, 4)
        assert summary.roles == {"instance": 1, "replaced": 1, "waiting": 1}
    assert there.of(missing.key).instance == (
        missing.study_instance_uid,
        missing.series_instance_uid,
        missing.sop_instance_uid,
    )

    summary = await there.audit(repair=True)
    assert there.found() == beyond_repair
    assert summary.roles == {"instance": 2, "replaced": 1, "waiting": 2}
    assert summary.marked == 1

    await there.space.delete("notes.txt")
    await there.space.delete(named(b"junk"))
    for dataset in datasets:  # what its sender still has mends the rest
        await there.store(dataset)
    summary = await there.audit()
    assert there.found() == set()
    assert (summary.marked, summary.roles["instance"], summary.digests) == (0, 5, 5)


async def test_what_was_never_recorded_is_recorded_and_announced(there: Archive) -> None:
    dataset = instance(**UIDS)
    await there.store(dataset, recorded=False)
    await there.audit(repair=True)
    repaired = await published(there.manifest)
    assert [event.type for event in repaired] == [IMAGE_STORED, DICOM_AVAILABLE]
    assert await there.manifest.revise(timedelta(0)) == 1
    (place,) = await there.manifest.locate(Scope("1.2.3", provider=PROVIDER))
    assert place.size == len(await there.space.get(place.object_name))
    await there.store(dataset)  # the sender tries again: no news
    assert [event.type for event in await published(there.manifest)] == ["StudyRevisionEvent"]
    await there.delete("1.2.3")
    await there.store(dataset, recorded=False)  # writes again under the name that was deleted
    await there.audit(repair=True)
    assert there.found() == set()
    assert await there.manifest.locate(Scope("1.2.3")) == []


async def test_a_version_that_was_never_recorded_replaces_another_only_when_asked_to(there: Archive) -> None:
    first = await there.store(instance(**UIDS, PatientID="recorded"), at=datetime.now(UTC))
    second = await there.store(instance(**UIDS, PatientID="written later"), recorded=False)

    async def recorded() -> str:
        (place,) = await there.manifest.locate(Scope("1.2.3"))
        return place.object_name

    for _ in range(2):
        await there.audit(repair=True)
        assert there.found() == {("unknown", second.key)}
        assert "another version" in there.of(second.key).reason
        assert await recorded() == first.key
    await asyncio.sleep(1)  # S3 tells the time of an object in seconds
    second = await there.store(instance(**UIDS, PatientID="written later"), recorded=False)
    await there.audit(repair=True, newest_wins=True)
    assert await recorded() == second.key
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    third = await there.store(instance(**UIDS, PatientID="newest"), at=in_an_hour)
    fourth = await there.store(instance(**UIDS, PatientID="older"), recorded=False)
    await there.audit(repair=True, newest_wins=True)
    assert there.of(fourth.key).repaired == "listed as an earlier version"
    assert await recorded() == third.key
    summary = await there.audit()
    assert there.found() == set()
    assert summary.roles == {"instance": 1, "replaced": 3}


async def test_a_version_that_was_refused_is_no_unknown_object(there: Archive) -> None:
    now = datetime.now(UTC)
    await there.store(instance(**UIDS, PatientID="newer"), at=now)
    for _ in range(2):
        with pytest.raises(Exception, match="later than this one, is there already"):
            await there.store(instance(**UIDS, PatientID="older"), at=now - timedelta(hours=1))
    summary = await there.audit()
    assert there.found() == set()
    assert summary.roles == {"instance": 1, "replaced": 1}
    await there.delete("1.2.3")
    assert len(await there.manifest.waiting_objects(PROVIDER)) == 2


async def test_a_mark_goes_when_the_object_is_there_again(there: Archive) -> None:
    one = await there.store(instance(**UIDS))
    content = await there.space.get(one.key)
    await there.space.delete(one.key)
    await there.audit(repair=True, mark_all=True)
    await there.space.put(one.key, content)  # from a backup
    for repair in (False, True):
        await there.audit(repair=repair)
        assert there.found() == {("found", one.key)}
    await there.audit()
    assert there.found() == set()


async def test_objects_of_other_providers_in_the_bucket_are_theirs(there: Archive) -> None:
    await there.store(instance(), provider="south")
    summary = await there.audit(repair=True)
    assert there.found() == set()
    assert summary.roles == {"other": 1}


@pytest.mark.parametrize("there", ["folder", "s3"], indirect=True)
async def test_another_providers_object_is_never_removed(there: Archive) -> None:
    """It has the same bytes, and so the name, of one that this provider has deleted."""
    remover = ObjectRemover(there.manifest, there.space, PROVIDER)
    await there.store(instance(**UIDS))
    await there.delete("1.2.3")
    assert await remover.remove_some() == 1
    theirs = await there.store(instance(**UIDS), provider="south")
    summary = await there.audit(repair=True)
    assert there.found() == set()
    assert summary.roles == {"other": 1}
    await there.audited().await_removal([theirs.key])
    assert await there.manifest.waiting_objects(PROVIDER) == []
    async with there.pool.connection() as connection:
        await connection.execute("UPDATE deleted_object SET waiting_since = now()")
    assert await remover.remove_some() == 0
    assert await there.space.head(theirs.key) is not None


@pytest.mark.parametrize("there", ["folder"], indirect=True)
async def test_a_restored_backup_finds_what_was_stored_again(there: Archive) -> None:
    first = await there.store(instance(**UIDS))
    await there.delete("1.2.3")
    remover = ObjectRemover(there.manifest, there.space, PROVIDER)
    await remover.remove_some()
    again = await there.store(instance(**UIDS))
    await remover.remove_some()
    async with there.pool.connection() as connection:  # as of the backup, from before the deletion
        await connection.execute("UPDATE dicom_instance SET objectname = %s", (first.key,))
        await connection.execute("DELETE FROM deleted_object")
    for repaired in ({"recorded", "marked as missing"}, set()):
        await there.audit(repair=True, newest_wins=True)
        assert {one.repaired for one in there.findings} == repaired
        (place,) = await there.manifest.locate(Scope("1.2.3"))
        assert (place.object_name, place.missing_since) == (again.key, None)


@pytest.mark.parametrize("there", ["folder"], indirect=True)
async def test_a_deleted_instance_does_not_come_back(there: Archive) -> None:
    left = await there.store(instance(**UIDS, PatientID="first try"), recorded=False)
    await there.store(instance(**UIDS, PatientID="corrected"))
    await there.delete("1.2.3")
    for newest_wins in (False, True):
        await there.audit(repair=True, newest_wins=newest_wins)
        assert there.of(left.key).reason == "not recorded, and its instance was deleted"
        assert there.of(left.key).repaired is None
        assert await there.manifest.locate(Scope("1.2.3")) == []


@pytest.mark.parametrize("there", ["folder"], indirect=True)
async def test_an_empty_space_marks_nothing_unless_told_to(there: Archive) -> None:
    one = await there.store(instance(**UIDS))
    await there.space.delete(one.key)
    with pytest.raises(Conflict, match="the storage space is empty"):
        await there.audit(repair=True)
    (place,) = await there.manifest.locate(Scope("1.2.3"))
    assert place.missing_since is None
    assert (await there.audit()).findings == {"missing": 1}
    await there.audit(repair=True, mark_all=True)
    (place,) = await there.manifest.locate(Scope("1.2.3"))
    assert place.missing_since is not None


@pytest.mark.parametrize("there", ["folder"], indirect=True)
async def test_a_mark_that_goes_leaves_the_former_name_listed(there: Archive) -> None:
    """The instance is stored again in another bucket, under another name."""
    stored = await there.store(instance(**UIDS))
    async with there.pool.connection() as connection:
        await connection.execute(
            "UPDATE dicom_instance SET objectname = 'former', bucketname = 'old', missing_since = now()"
        )
        await there.store(instance(**UIDS))
        cursor = await connection.execute(
            "SELECT i.objectname, i.bucketname, i.missing_since, r.objectname, r.bucketname, r.refused"
            " FROM dicom_instance i JOIN replaced_object r ON r.instance_id = i.id"
        )
        assert await cursor.fetchall() == [(stored.key, None, None, "former", "old", True)]


async def test_young_objects_may_yet_be_recorded(there: Archive) -> None:
    await there.store(instance(), recorded=False)
    summary = await there.audit(grace=60)
    assert there.found() == set()
    assert summary.recent == 1


async def test_it_goes_on_where_it_broke_off(database: Any) -> None:
    class Failing(MemoryObjectStore):
        async def head(self, key: str) -> Any:
            raise BackendUnavailable("away")

    async with archive(database, Failing()) as there:
        stored = sorted([(await there.store(instance())).key for _ in range(3)])
        await there.space.delete(stored[1])
        with pytest.raises(BackendUnavailable, match="away"):
            await there.audit()
        summary = await there.audit(after=stored[1])
        assert (summary.objects, summary.position) == (1, stored[2])


async def test_nothing_is_found_while_instances_come_and_go(there: Archive) -> None:
    """Ingestion, deletion and removal at once, with audits beside them."""
    chance = random.Random(7)
    remover = ObjectRemover(there.manifest, there.space, PROVIDER)
    study = [instance(**{**UIDS, "SOPInstanceUID": f"1.2.3.1.{number}"}) for number in range(6)]
    done = asyncio.Event()

    async def store() -> None:
        while not done.is_set():
            dataset = chance.choice(study)
            dataset.PatientID = chance.choice(["one", "another"])
            await there.store(dataset)

    async def remove() -> None:
        while not done.is_set():
            await there.delete("1.2.3")
            await remover.remove_some()

    async with asyncio.TaskGroup() as tasks:
        for work in (store(), store(), remove()):
            tasks.create_task(work)
        for _ in range(8):
            await there.audit(grace=120, repair=True)
            assert there.found() == set()
        done.set()
    while await remover.remove_some():
        pass
    await there.audit()
    assert there.found() == set()

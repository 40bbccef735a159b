"""Deleting instances: what every manifest does, whatever it is made of."""

import asyncio
import dataclasses
import json
from datetime import UTC, datetime, timedelta

import pytest

from imaging_services.adapters.postgres.manifest import PostgresManifest
from imaging_services.domain.errors import InvalidInput, MissingIdentifier, ObjectDeleted, Superseded
from imaging_services.domain.events.envelope import (
    ACCEPTED_AT,
    DICOM_AVAILABLE,
    IMAGE_DELETED,
    IMAGE_STORED,
    STUDY_REVISION,
    CloudEvent,
)
from imaging_services.domain.manifest.deletion import deletion_events
from imaging_services.domain.manifest.query import Level, Query, Scope
from imaging_services.domain.ports import Counts
from support.manifest_events import stored
from support.manifests import SOURCE, migrated_pool, opened, published, query_api

QUIET = timedelta(0)


@pytest.fixture(params=["memory", "postgres"])
async def manifest(request):
    async with opened(request.param, request) as manifest:
        yield manifest


async def delete(manifest, *scope: str, provider: str = "north") -> list[CloudEvent]:
    """Delete what is recorded there, as the DICOMweb service does."""
    events = list(deletion_events("web.test", provider, await manifest.locate(Scope(*scope, provider=provider))))
    assert await manifest.record(events) == [None] * len(events)
    return events


async def revision(manifest) -> dict:
    await manifest.revise(QUIET)
    (event,) = [event for event in await published(manifest) if event.type == STUDY_REVISION]
    return json.loads(event.data)


def again(event: CloudEvent, generation: int) -> CloudEvent:
    """The same bytes under the name that they get after they were deleted so often."""
    data = json.loads(event.data)
    data["store"]["objectName"] = data["store"]["objectName"].replace(".dcm", f"-{generation}.dcm")
    return dataclasses.replace(event, data=json.dumps(data).encode())


async def test_a_deleted_series_is_neither_located_nor_found_nor_counted(manifest):
    events = [stored("1.2", f"1.2.{series}", f"1.2.{series}.{n}") for series in (1, 2) for n in (1, 2)]
    await manifest.record(events)
    await published(manifest)
    (deletion,) = await delete(manifest, "1.2", "1.2.1")
    assert await published(manifest) == [deletion]
    assert deletion.type == IMAGE_DELETED
    assert json.loads(deletion.data)["instances"][0] == {
        "seriesInstanceUID": "1.2.1",
        "sopInstanceUID": "1.2.1.1",
        "objectName": json.loads(events[0].data)["store"]["objectName"],
    }
    assert [one.series_instance_uid for one in await manifest.locate(Scope("1.2"))] == ["1.2.2", "1.2.2"]
    for level, count in ((Level.STUDY, 1), (Level.SERIES, 1), (Level.IMAGE, 2)):
        assert len(await manifest.search(Query(level, "north"))) == count
    (study,) = await manifest.search(Query(Level.STUDY, "north", include_all=True))
    assert (study["00201206"]["Value"], study["00201208"]["Value"]) == ([1], [2])
    counts = await manifest.counts()
    assert (counts.studies, counts.series, counts.instances) == (1, 1, 2)


async def test_the_next_revision_tells_what_is_gone(manifest):
    await manifest.record([stored("1.2", "1.2.1", f"1.2.1.{n}") for n in (1, 2)])
    assert (await revision(manifest))["revision"] == 0
    await delete(manifest, "1.2", "1.2.1", "1.2.1.2")
    told = await revision(manifest)
    assert told["revision"] == 1
    assert told["changeSet"] == {"additions": [], "deletions": ["1.2.1/1.2.1.2"], "modifications": []}
    (series,) = told["study"]["series"]
    assert [one["sopInstanceUID"] for one in series["instances"]] == ["1.2.1.1"]
    await delete(manifest, "1.2")
    told = await revision(manifest)
    assert told["changeSet"]["deletions"] == ["1.2.1/1.2.1.1"]
    assert told["study"]["series"] == []
    assert await manifest.revise(QUIET) == 0
    assert await manifest.counts() == Counts(0, 0, 0, (await manifest.counts()).events)
    assert await manifest.search(Query(Level.STUDY, "north")) == []


async def test_what_came_and_went_between_two_revisions_is_not_told(manifest):
    await manifest.record([stored("1.2", "1.2.1", "1.2.1.1"), stored("1.2", "1.2.1", "1.2.1.2")])
    await delete(manifest, "1.2", "1.2.1", "1.2.1.2")
    assert (await revision(manifest))["changeSet"] == {
        "additions": ["1.2.1/1.2.1.1"],
        "deletions": [],
        "modifications": [],
    }


async def test_a_deleted_instance_can_be_stored_again_and_is_announced_again(manifest):
    event = stored("1.2", "1.2.1", "1.2.1.1")
    await manifest.record([event])
    first = await published(manifest)
    await manifest.revise(QUIET)
    await delete(manifest, "1.2")
    await published(manifest)
    (refusal,) = await manifest.record([event])
    assert isinstance(refusal, ObjectDeleted)
    assert await manifest.locate(Scope("1.2")) == []
    assert await manifest.record([again(event, 1)]) == [None]
    second = await published(manifest)
    assert [one.type for one in second] == [IMAGE_STORED, DICOM_AVAILABLE]
    assert second[1].id != first[1].id
    assert (await revision(manifest))["changeSet"]["modifications"] == ["1.2.1/1.2.1.1"]
    assert len(await manifest.locate(Scope("1.2"))) == 1
    await delete(manifest, "1.2")
    assert isinstance((await manifest.record([again(event, 1)]))[0], ObjectDeleted)
    assert await manifest.record([again(event, 2)]) == [None]


async def test_a_deletion_that_comes_again_spares_what_was_stored_in_between(manifest):
    event = stored("1.2", "1.2.1", "1.2.1.1")
    await manifest.record([event])
    deletions = await delete(manifest, "1.2")
    await manifest.record([again(event, 1)])
    await published(manifest)
    assert await manifest.record(deletions) == [None]
    assert len(await manifest.locate(Scope("1.2"))) == 1
    assert await published(manifest) == []


@pytest.mark.parametrize("together", [True, False])
async def test_a_deletion_that_comes_late_spares_what_was_stored_after_it(manifest, together):
    """As over an event bridge, where the deletion's first try failed."""
    event = stored("1.2", "1.2.1", "1.2.1.1")
    await manifest.record([event])
    late = list(deletion_events("web.test", "north", await manifest.locate(Scope("1.2"))))
    for batch in [[*late, again(event, 1)]] if together else [[again(event, 1)], [event], late]:
        assert await manifest.record(batch) == [None] * len(batch)
    (found,) = await manifest.locate(Scope("1.2"))
    assert found.object_name.endswith("-1.dcm")


async def test_the_old_and_the_new_name_of_an_instance_may_come_at_once(manifest):
    event = stored("1.2", "1.2.1", "1.2.1.1")
    await manifest.record([event])
    await delete(manifest, "1.2")
    refusal, recorded = await manifest.record([event, again(event, 1)])
    assert isinstance(refusal, ObjectDeleted)
    assert recorded is None
    assert len(await manifest.locate(Scope("1.2"))) == 1


async def test_a_refused_instance_takes_no_other_with_it(manifest):
    gone, good = stored("1.2", "1.2.1", "1.2.1.1"), stored("1.3", "1.3.1", "1.3.1.1")
    await manifest.record([gone])
    await delete(manifest, "1.2")
    results = await manifest.record([stored("1.2", "1.2.2", "1.2.2.1"), gone, good])
    assert [type(one) for one in results] == [type(None), ObjectDeleted, type(None)]
    found = await manifest.search(Query(Level.SERIES, "north"))
    assert {one["0020000E"]["Value"][0] for one in found} == {"1.2.2", "1.3.1"}


async def test_what_was_accepted_before_and_is_delivered_once_more_stays_deleted(manifest):
    accepted = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
    event = dataclasses.replace(stored("1.2", "1.2.1", "1.2.1.1"), extensions={ACCEPTED_AT: accepted.isoformat()})
    await manifest.record([event])
    await delete(manifest, "1.2")
    assert await manifest.record([event]) == [None]
    assert await manifest.locate(Scope("1.2")) == []
    later = {ACCEPTED_AT: (accepted + timedelta(seconds=1)).isoformat()}
    (refusal,) = await manifest.record([dataclasses.replace(event, extensions=later)])
    assert isinstance(refusal, ObjectDeleted)


async def test_the_last_time_that_replaced_bytes_were_accepted_counts(manifest):
    """First, second, first, second, deleted: the third delivery comes once more."""
    accepted = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
    versions = [
        dataclasses.replace(
            stored("1.2", "1.2.1", "1.2.1.1", content=content),
            extensions={ACCEPTED_AT: (accepted + timedelta(seconds=second)).isoformat()},
        )
        for second, content in enumerate(["first", "second", "first", "second"])
    ]
    for event in versions:
        assert await manifest.record([event]) == [None]
    await delete(manifest, "1.2")
    assert await manifest.record([versions[2]]) == [None]
    assert await manifest.locate(Scope("1.2")) == []


async def test_a_version_that_was_refused_is_removed_with_its_instance(manifest):
    first, second = (stored("1.2", "1.2.1", "1.2.1.1", content=content) for content in ("newer", "older"))
    newer = dataclasses.replace(first, extensions={ACCEPTED_AT: "2026-01-02T00:00:00Z"})
    older = dataclasses.replace(second, extensions={ACCEPTED_AT: "2026-01-01T00:00:00Z"})
    assert await manifest.record([newer]) == [None]
    for _ in range(2):
        (refused,) = await manifest.record([older])
        assert isinstance(refused, Superseded)
    await delete(manifest, "1.2")
    waiting = {one.object_name for one in await manifest.waiting_objects("north")}
    assert waiting == {json.loads(event.data)["store"]["objectName"] for event in (newer, older)}
    assert await manifest.record([older]) == [None]  # what has been deleted, delivered once more
    assert await manifest.locate(Scope("1.2")) == []


async def test_a_study_that_comes_back_is_described_anew_and_may_have_another_provider(manifest):
    """Deleting and storing again is how a wrong name is put right."""
    await manifest.record([stored("1.2", "1.2.1", "1.2.1.1", attributes={"00100010": "Wrong^Name"})])
    await delete(manifest, "1.2")
    right = stored("1.2", "1.2.1", "1.2.1.1", content="second", provider="south", attributes={"00100010": "Right^Name"})
    assert await manifest.record([right]) == [None]
    (study,) = await manifest.search(Query(Level.STUDY, include=frozenset({"00100010"})))
    assert study["00100010"]["Value"] == [{"Alphabetic": "Right^Name"}]


async def test_objects_wait_to_be_removed_once(manifest):
    """The one that other bytes had replaced, too; and again when somebody has written one of them anew."""
    first, second = (stored("1.2", "1.2.1", "1.2.1.1", content=content) for content in ("first", "second"))
    names = [json.loads(event.data)["store"]["objectName"] for event in (first, second)]
    for event in (first, second):
        await manifest.record([event])
    assert await manifest.waiting_objects("north") == []
    await delete(manifest, "1.2")
    waiting = await manifest.waiting_objects("north")
    assert {one.object_name for one in waiting} == set(names)
    assert await manifest.waiting_objects("south") == []
    assert len(await manifest.waiting_objects("north", 1)) == 1
    await manifest.record([first])
    await manifest.objects_removed("north", waiting)
    assert [one.object_name for one in await manifest.waiting_objects("north")] == [names[0]]
    await manifest.objects_removed("north", await manifest.waiting_objects("north"))
    assert await manifest.waiting_objects("north") == []


async def test_an_object_that_has_become_another_providers_does_not_wait_to_be_removed(manifest):
    shared = {"store": {"bucketName": "shared"}}
    await manifest.record([first := stored("1.2", "1.2.1", "1.2.1.1", **shared), stored("1.3", "1.3.1", "1.3.1.1")])
    await delete(manifest, "1.2")
    await delete(manifest, "1.3")
    assert len(await manifest.waiting_objects("north")) == 2
    await manifest.record([stored("1.2", "1.2.1", "1.2.1.1", provider="south", **shared)])
    await manifest.record([stored("1.3", "1.3.1", "1.3.1.1", provider="south")])  # in a bucket of its own
    ours = json.loads(first.data)["store"]["objectName"]
    assert ours not in [one.object_name for one in await manifest.waiting_objects("north")]
    assert len(await manifest.waiting_objects("north")) == 1
    await manifest.record([stored("1.2", "1.2.1", "1.2.1.1", provider="south", content="other", **shared)])
    assert len(await manifest.waiting_objects("north")) == 1  # a version that was replaced stays
    await delete(manifest, "1.2", provider="south")
    assert len(await manifest.waiting_objects("north")) == 2


async def test_the_query_api_tells_of_waiting_objects(manifest):
    await manifest.record([stored("1.2", "1.2.1", "1.2.1.1")])
    await delete(manifest, "1.2")
    async with query_api(manifest) as client:
        (waiting,) = await client.waiting_objects("north")
        await client.objects_removed("north", [waiting])
        assert await client.waiting_objects("north") == []


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"instances": []}, InvalidInput),
        ({"provider": ""}, InvalidInput),
        ({"studyInstanceUID": "x"}, MissingIdentifier),
        ({"instances": [{"seriesInstanceUID": "1", "sopInstanceUID": "1", "objectName": "a\x00"}]}, InvalidInput),
        ({"instances": [{"seriesInstanceUID": "1", "objectName": "a"}]}, InvalidInput),
    ],
)
async def test_a_deletion_that_cannot_be_read_is_refused(manifest, change, error):
    instances = [{"seriesInstanceUID": "1.2.1", "sopInstanceUID": "1.2.1.1", "objectName": "a.dcm"}]
    data = {"provider": "north", "studyInstanceUID": "1.2", "instances": instances} | change
    (refusal,) = await manifest.record([CloudEvent(IMAGE_DELETED, "test", "1", json.dumps(data).encode())])
    assert isinstance(refusal, error)


async def test_processors_store_delete_and_revise_at_once_and_the_counts_stay_right(database):
    """Several processors, in any order: no deadlock, no lost instance, no wrong count."""
    events = [stored(f"1.{study}", f"1.{study}.{n % 2}", f"1.{study}.{n}") for study in (2, 3) for n in range(8)]
    async with migrated_pool(database) as one, migrated_pool(database) as two:
        first, second = PostgresManifest(one, SOURCE), PostgresManifest(two, SOURCE)

        async def store(manifest, generation: int) -> None:
            for event in events[:: 1 if generation % 2 else -1]:
                await manifest.record([again(event, generation) if generation else event])

        async def remove(manifest) -> None:
            for study in ("1.3", "1.2") * 6:
                await manifest.record(list(deletion_events("w", "north", await manifest.locate(Scope(study)))))
                await manifest.revise(QUIET)

        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            for work in (store(first, 0), store(second, 1), store(first, 2), remove(second), remove(first)):
                tasks.create_task(work)
        left = [one for study in ("1.2", "1.3") for one in await first.locate(Scope(study))]
        counts = await first.counts()
        assert counts.instances == len(left)
        assert counts.series == len({one.series_instance_uid for one in left})
        waiting = {one.object_name for one in await first.waiting_objects("north", 1000)}
        assert not waiting & {one.object_name for one in left}
        for one in left:
            await second.record(list(deletion_events("w", "north", [one])))
        assert (await first.counts()).instances == 0

"""Several processors on one database, and databases that vanish in the midst of work."""

import asyncio
import json
import random
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from imaging_services.adapters.postgres.manifest import PostgresManifest
from imaging_services.adapters.postgres.migrate import migrate
from imaging_services.adapters.postgres.pool import open_pool
from imaging_services.adapters.postgres.settings import PostgresSettings
from imaging_services.domain.errors import BackendUnavailable, Conflict, RetryableError, Superseded
from imaging_services.domain.events.envelope import ACCEPTED_AT, DICOM_AVAILABLE, IMAGE_STORED, STUDY_REVISION
from imaging_services.domain.manifest.query import Scope
from imaging_services.domain.ports import Counts
from support.manifest_events import stored
from support.manifests import migrated_pool, published
from support.wires import Wire


def in_batches(events, size):
    return [events[start : start + size] for start in range(0, len(events), size)]


async def test_processors_race_on_the_same_studies_without_deadlock_or_doubles(database):
    studies = [f"1.{number}" for number in range(1, 9)]
    events = [
        stored(study, f"{study}.{series}", f"{study}.{series}.{number}")
        for number in range(12)
        for series in (1, 2)
        for study in studies
    ]
    async with migrated_pool(database) as one, migrated_pool(database) as two:
        first, second = PostgresManifest(one, "a"), PostgresManifest(two, "b")
        work = []
        for forward, backward in zip(in_batches(events, 24), in_batches(events[::-1], 24), strict=True):
            work += [first.record(forward), second.record(backward), second.record(forward[::-1])]
        for results in await asyncio.wait_for(asyncio.gather(*work), 60):
            assert set(results) == {None}
        assert await first.counts() == Counts(8, 16, len(events), 0)
        announced = Counter((event.type, event.id) for event in await published(first))
        assert len(announced) == 2 * len(events)
        assert set(announced.values()) == {1}


async def test_one_provider_wins_a_series_that_two_bring_at_once(database):
    async with migrated_pool(database) as pool:
        manifest = PostgresManifest(pool, "a")
        for turn in range(10):
            north = stored(f"1.{turn}", f"9.{turn}", f"1.{turn}.1", provider="north")
            south = stored(f"2.{turn}", f"9.{turn}", f"2.{turn}.1", provider="south")
            results = await asyncio.gather(manifest.record([north]), manifest.record([south]))
            assert sorted(type(result).__name__ for (result,) in results) == [Conflict.__name__, "NoneType"]
        assert (await manifest.counts()).studies == 10


async def test_every_instance_is_in_exactly_one_change_set(database):
    """W-07: revisions are made while instances come, by two processors."""
    count = 120
    async with migrated_pool(database) as one, migrated_pool(database) as two:
        first, second = PostgresManifest(one, "a"), PostgresManifest(two, "b")
        done = asyncio.Event()

        async def revising(manifest):
            while not done.is_set():
                await manifest.revise(timedelta(0))
                await asyncio.sleep(0)

        async def recording(manifest, numbers):
            for number in numbers:
                await manifest.record([stored("1.2", f"1.2.{number % 3}", f"1.2.9.{number}")])

        async with asyncio.TaskGroup() as tasks:
            workers = [tasks.create_task(revising(manifest)) for manifest in (first, second)]
            await asyncio.gather(recording(first, range(0, count, 2)), recording(second, range(1, count, 2)))
            done.set()
            await asyncio.gather(*workers)
        await first.revise(timedelta(0))
        revisions = [json.loads(event.data) for event in await published(first) if event.type == STUDY_REVISION]
    assert [one["revision"] for one in revisions] == list(range(len(revisions)))
    assert len(revisions) > 2
    added = Counter(uid for one in revisions for uid in one["changeSet"]["additions"])
    assert len(added) == count
    assert set(added.values()) == {1}
    announced = {f"{series['seriesInstanceUID']}/{instance['sopInstanceUID']}"
                 for series in revisions[-1]["study"]["series"] for instance in series["instances"]}  # fmt: skip
    assert announced == set(added)


async def test_the_newest_version_stays_whoever_records_the_others(database):
    """Two processors, versions of ten instances in any order, each handed in twice."""
    start = datetime(2024, 5, 6, tzinfo=UTC)
    versions = [
        replace(
            stored("1.2", "1.2.1", f"1.2.1.{number}", content=f"version {age}"),
            extensions={ACCEPTED_AT: (start + timedelta(seconds=age)).isoformat()},
        )
        for age in range(12)
        for number in range(10)
    ]
    shuffled = versions * 2
    random.Random(4).shuffle(shuffled)
    async with migrated_pool(database) as one, migrated_pool(database) as two:
        manifests = PostgresManifest(one, "a"), PostgresManifest(two, "b")
        work = [manifests[turn % 2].record(batch) for turn, batch in enumerate(in_batches(shuffled, 7))]
        outcomes = [outcome for batch in await asyncio.wait_for(asyncio.gather(*work), 60) for outcome in batch]
        assert {type(outcome) for outcome in outcomes} == {type(None), Superseded}
        locations = await manifests[0].locate(Scope("1.2"))
        newest = {json.loads(event.data)["store"]["objectName"] for event in versions[-10:]}
        assert {location.object_name for location in locations} == newest
        assert len(locations) == 10


async def test_two_publishers_keep_the_order_and_lose_nothing(database):
    async with migrated_pool(database) as one, migrated_pool(database) as two:
        first, second = PostgresManifest(one, "a"), PostgresManifest(two, "b")
        taken = []

        async def take(events):
            await asyncio.sleep(0.001)
            taken.extend(events)

        async def publishing(manifest):
            while len(taken) < 400:
                await manifest.publish_pending(take, 7)

        async def recording(manifest, study):
            for number in range(100):
                await manifest.record([stored(study, f"{study}.1", f"{study}.1.{number}")])

        await asyncio.wait_for(
            asyncio.gather(publishing(first), publishing(second), recording(first, "1.1"), recording(second, "1.2")),
            60,
        )
        for study in ("1.1", "1.2"):
            endings = [
                int(json.loads(event.data)["endpoint"].rsplit(".", 1)[1])
                for event in taken
                if event.type == DICOM_AVAILABLE and f"/studies/{study}/" in event.data.decode()
            ]
            assert endings == list(range(100))
        assert Counter(event.type for event in taken) == {IMAGE_STORED: 200, DICOM_AVAILABLE: 200}


async def test_a_publisher_that_dies_leaves_its_events(database):
    async with migrated_pool(database) as pool:
        manifest = PostgresManifest(pool, "a")
        await manifest.record([stored("1.2", "1.2.1", "1.2.1.1")])
        reached = asyncio.Event()

        async def never(_):
            reached.set()
            await asyncio.Event().wait()

        dying = asyncio.create_task(manifest.publish_pending(never))
        await reached.wait()
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
        assert len(await published(manifest)) == 2


async def test_a_publisher_that_is_not_heard_of_loses_its_turn(database):
    """As one does whose connection is dead without either end having been told."""
    async with migrated_pool(database) as one, migrated_pool(database) as two:
        silent = PostgresManifest(one, "a", publishing=timedelta(seconds=0.2))
        await silent.record([stored("1.2", "1.2.1", "1.2.1.1")])
        reached, heard_of_again = asyncio.Event(), asyncio.Event()

        async def late(_):
            reached.set()
            await heard_of_again.wait()

        hanging = asyncio.create_task(silent.publish_pending(late))
        await reached.wait()
        assert len(await asyncio.wait_for(published(PostgresManifest(two, "b")), 60)) == 2
        heard_of_again.set()
        with pytest.raises(BackendUnavailable):
            await hanging


async def test_a_restart_loses_no_timer(database):
    async with migrated_pool(database) as pool:
        await PostgresManifest(pool, "a").record([stored("1.2", "1.2.1", "1.2.1.1")])
    async with migrated_pool(database) as pool:
        assert await PostgresManifest(pool, "b").revise(timedelta(0)) == 1


async def test_a_connection_lost_in_the_midst_of_a_batch_leaves_nothing(database):
    async with migrated_pool(database) as pool:
        manifest = PostgresManifest(pool, "a")
        events = [stored("1.2", "1.2.1", f"1.2.1.{number}") for number in range(50)]
        with psycopg.connect(database.conninfo, autocommit=False) as blocker:
            # The batch has inserted studies, series and instances, and waits here, at its last table but one.
            blocker.execute("LOCK TABLE study_change IN ACCESS EXCLUSIVE MODE")
            recording = asyncio.create_task(manifest.record(events))
            with psycopg.connect(database.conninfo, autocommit=True) as killer:
                await asyncio.wait_for(asyncio.to_thread(_kill_waiting, killer), 60)
            with pytest.raises(BackendUnavailable):
                await recording
        assert await manifest.counts() == Counts(0, 0, 0, 0)
        assert await manifest.locate(Scope("1.2")) == []
        assert await manifest.record(events) == [None] * 50
        assert len(await published(manifest)) == 100


def _kill_waiting(killer) -> None:
    waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while not (pids := killer.execute(waiting).fetchall()):
        pass
    for (pid,) in pids:
        killer.execute("SELECT pg_terminate_backend(%s)", (pid,))


async def test_a_value_that_only_the_database_refuses_refuses_only_its_event(database):
    async with migrated_pool(database) as pool:
        async with pool.connection() as connection:
            await connection.execute("ALTER TABLE dicom_instance ADD CHECK (sop_instance_uid <> '1.2.1.13')")
        manifest = PostgresManifest(pool, "a")
        results = await manifest.record([stored("1.2", "1.2.1", f"1.2.1.{number}") for number in range(40)])
        assert [number for number, result in enumerate(results) if result] == [13]
        assert (await manifest.counts()).instances == 39
        assert len(await published(manifest)) == 78


async def test_a_database_that_keeps_its_connections_open_and_says_nothing_is_given_up(database):
    settings = PostgresSettings(
        host="127.0.0.1", name=database.name, user=database.user, password=database.password, timeout_seconds=1, port=1
    )
    with Wire(lambda: database.port) as wire:
        async with open_pool(settings.model_copy(update={"port": wire.port})) as pool:
            manifest = PostgresManifest(pool, "a")
            await migrate(pool)
            wire.swallow()
            async with asyncio.timeout(20):
                with pytest.raises(RetryableError):
                    await manifest.counts()
                wire.mend()
                while True:
                    with suppress(RetryableError):  # the pool connects again with pauses
                        await manifest.record([stored("1.1", "1.1.1", "1.1.1.1")])
                        break
                    await asyncio.sleep(0.1)

"""The schema's files add up, can be applied by many at once, and are refused where they do not fit."""

import asyncio
from dataclasses import replace
from itertools import product

import psycopg
import pytest

from imaging_services.adapters.postgres.manifest import PostgresManifest
from imaging_services.adapters.postgres.migrate import Migration, migrate, migrations
from imaging_services.adapters.postgres.pool import open_pool
from imaging_services.domain.errors import BackendUnavailable, DeadlineExceeded, SettingsError
from imaging_services.domain.events.envelope import ACCEPTED_AT
from imaging_services.domain.manifest.query import Level, Query
from imaging_services.domain.manifest.values import date_key, date_time_key, moved, time_key, zone_minutes
from support.manifest_events import stored
from support.manifests import postgres_settings

# What the reference system's tables hold; whoever reads the database relies on it.
REFERENCE = {
    "dicom_study": {"id", "study_instance_uid", "study_id", "study_date", "study_time", "revision", "revision_time"},
    "dicom_study_attributes": {"study_id", "tag", "vr", "value"},
    "dicom_series": {"id", "study_id", "series_instance_uid", "number", "modality"},
    "dicom_series_attributes": {"series_id", "tag", "vr", "value"},
    "dicom_instance": {
        "id", "series_id", "sop_instance_uid", "sop_class_uid", "transfer_syntax_uid", "number", "objectname",
        "last_modified", "initial_revision", "deleted_revision",
    },
    "provider": {
        "id", "series_id", "name", "bucketname", "bucketendpoint", "bucketregion", "wadointernalendpoint",
        "wadoexternalendpoint",
    },
}  # fmt: skip


def columns(database) -> dict[str, set[str]]:
    with psycopg.connect(database.conninfo) as connection:
        rows = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        ).fetchall()
    found: dict[str, set[str]] = {}
    for table, column in rows:
        found.setdefault(table, set()).add(column)
    return found


def test_files_are_numbered_without_gaps():
    assert [one.number for one in migrations()] == list(range(1, len(migrations()) + 1))


async def test_twice_is_once(database):
    async with open_pool(postgres_settings(database)) as pool:
        assert await migrate(pool) == len(migrations())
        assert await migrate(pool) == 0
    found = columns(database)
    for table, wanted in REFERENCE.items():
        assert wanted <= found[table], table
    with psycopg.connect(database.conninfo) as connection:
        assert connection.execute("SELECT nextval('hibernate_sequence')").fetchone()


async def test_many_at_once_are_one(database):
    async with open_pool(postgres_settings(database)) as pool:
        applied = await asyncio.gather(*(migrate(pool) for _ in range(6)))
    assert sorted(applied) == [0, 0, 0, 0, 0, len(migrations())]


async def test_one_after_the_other_gives_the_same_schema(database):
    async with open_pool(postgres_settings(database)) as pool:
        for count in range(1, len(migrations()) + 1):
            assert await migrate(pool, migrations()[:count]) == 1
    stepwise = columns(database)
    assert REFERENCE.keys() <= stepwise.keys()
    assert {"outbox", "study_change", "association", "replaced_object"} <= stepwise.keys()


BEFORE_PLAIN_LETTERS = """
    INSERT INTO dicom_study (id, study_instance_uid, patient_name, patient_name_words, names) VALUES
      (1, '1.2', 'sørensen^bjørn', array_to_tsvector(ARRAY['sørensen', 'bjørn']),
       '{"00100010": {"k": ["sørensen^bjørn"], "w": ["sørensen", "bjørn"]},
         "00080090": {"k": ["wałęsa^lech"], "w": ["wałesa", "lech"]}}');
    INSERT INTO dicom_series (id, study_id, series_instance_uid, provider, names) VALUES
      (2, 1, '1.2.1', 'north', '{"00081070": {"k": ["bjørnson"], "w": ["bjørnson"]}}');
"""


async def test_names_from_before_plain_letters_are_found(database):
    async with open_pool(postgres_settings(database)) as pool:
        await migrate(pool, migrations()[:4])
        async with pool.connection() as connection:
            await connection.execute(BEFORE_PLAIN_LETTERS)
        await migrate(pool)
        manifest = PostgresManifest(pool, "edi")
        keys = {"00100010": "bjorn sorensen", "00080090": "walesa", "00081070": "Bjornson"}
        for tag, key in keys.items():
            assert len(await manifest.search(Query(Level.SERIES, filters={tag: (key,)}, fuzzy=True))) == 1, key
        exact = Query(Level.SERIES, filters={"00100010": ("Sørensen^*",), "00080090": ("Wałęsa^Lech",)})
        assert len(await manifest.search(exact)) == 1


async def test_rows_from_before_the_order_of_versions_give_way_to_any(database):
    old, new = (stored("1.2", "1.2.1", "1.2.1.1", content=content) for content in ("old", "new"))
    async with open_pool(postgres_settings(database)) as pool:
        await migrate(pool)
        manifest = PostgresManifest(pool, "edi")
        await manifest.record([old])
        async with pool.connection() as connection:
            await connection.execute("UPDATE dicom_instance SET accepted_at = NULL")
        order = {ACCEPTED_AT: "2001-02-03T04:05:06Z"}
        assert await manifest.record([replace(new, extensions=order)]) == [None]
        assert await manifest.record([replace(old, extensions=order)]) == [None]


async def test_a_failed_migration_leaves_nothing(database):
    broken = Migration(9000, "broken", "CREATE TABLE half (id int); SELECT no_such_function()")
    async with open_pool(postgres_settings(database)) as pool:
        with pytest.raises(BackendUnavailable):
            await migrate(pool, [*migrations(), broken])
        assert columns(database) == {}
        assert await migrate(pool) == len(migrations())


async def test_a_newer_schema_stops_the_start(database):
    newer = Migration(9000, "from_the_future", "CREATE TABLE future (id int)")
    async with open_pool(postgres_settings(database)) as pool:
        await migrate(pool, [*migrations(), newer])
        with pytest.raises(SettingsError, match="has schema 9000, this version knows up to"):
            await migrate(pool)


async def test_a_changed_file_stops_the_start(database):
    first, *others = migrations()
    async with open_pool(postgres_settings(database)) as pool:
        await migrate(pool)
        with pytest.raises(SettingsError, match="0001_manifest differs"):
            await migrate(pool, [replace(first, sql=first.sql + "\n-- changed"), *others])


async def test_the_reference_views_read_as_they_did(database):
    from imaging_services.adapters.postgres.manifest import PostgresManifest
    from support.manifest_events import stored

    header = {"00100010": "Doe^John", "00080060": "CT", "0008103E": "Thorax"}
    async with open_pool(postgres_settings(database)) as pool:
        await migrate(pool)
        await PostgresManifest(pool, "edi").record([stored("1.2", "1.2.1", "1.2.1.1", attributes=header)])
    with psycopg.connect(database.conninfo) as connection:
        study = connection.execute("SELECT tag, vr, value FROM dicom_study_attributes ORDER BY tag").fetchall()
        series = connection.execute("SELECT tag, vr, value FROM dicom_series_attributes").fetchall()
        provider = connection.execute("SELECT name, bucketname, wadointernalendpoint FROM provider").fetchall()
    assert study == [(0x00080061, "CS", "CT"), (0x00100010, "PN", "Doe^John")]
    assert series == [(0x0008103E, "LO", "Thorax")]
    assert provider == [("north", "north-images", "http://north.internal/wado-rs")]


async def test_canonical_forms_are_those_of_the_domain(database):
    moments = ["20240229233000.250000", "20240230120000.000000", "20161231235960.000000", "00000101000000.000000"]
    values = [
        "+0100", "-1230", "+1500",
        "", "2024", "20240102", "2024.01.02", "202401021", "1030", "10:30", "10", "103015.5", "103015.1234567", "25",
        "20240102103015.5+0100", "2024-0500", "202401", "2024010210.5", "20240102103015", "x", "1030\n", "２０２４",
    ]  # fmt: skip
    async with open_pool(postgres_settings(database)) as pool:
        await migrate(pool)
        async with pool.connection() as connection:
            for value in values:
                cursor = await connection.execute(
                    "SELECT dicom_date(%(v)s), dicom_time(%(v)s), dicom_date_time(%(v)s)", {"v": value}
                )
                assert await cursor.fetchone() == (date_key(value), time_key(value), date_time_key(value)), value
                cursor = await connection.execute("SELECT dicom_zone(%s)", (value,))
                assert await cursor.fetchone() == (zone_minutes(value),), value
            for key, minutes in product(moments, (0, 90, -90, 840)):
                cursor = await connection.execute("SELECT dicom_moved(%s, %s)", (key, minutes))
                assert await cursor.fetchone() == (moved(key, minutes),), key


async def test_a_migration_that_meets_an_older_processor_begins_anew(database):
    """The processor has a study and wants its series; the migration has the series and wants the study."""
    entered, go_on = asyncio.Event(), asyncio.Event()
    crossing = Migration(
        len(migrations()) + 1,
        "crossing",
        "UPDATE dicom_series SET number = 1; UPDATE dicom_study SET study_id = 'migrated'",
    )

    async def processor(pool):
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("SET LOCAL deadlock_timeout = '60s'")  # so that it is the migration that gives way
            await connection.execute("UPDATE dicom_study SET study_id = 'recorded'")
            entered.set()
            await go_on.wait()
            await connection.execute("UPDATE dicom_series SET number = 2")

    async with open_pool(postgres_settings(database)) as pool:
        await migrate(pool)
        await PostgresManifest(pool, "edi").record([stored("1.2", "1.2.1", "1.2.1.1")])
        recording = asyncio.create_task(processor(pool))
        await entered.wait()
        migrating = asyncio.create_task(migrate(pool, [*migrations(), crossing]))
        async with pool.connection() as connection:
            while True:
                cursor = await connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
                if await cursor.fetchone() != (0,):
                    break
        go_on.set()
        await recording
        assert await migrating == 1
        async with pool.connection() as connection:
            cursor = await connection.execute("SELECT st.study_id, se.number FROM dicom_study st, dicom_series se")
            assert await cursor.fetchone() == ("migrated", 1)


async def test_a_migration_that_gets_no_turn_says_so(database):
    alter = Migration(len(migrations()) + 1, "alter", "SET LOCAL lock_timeout = 10; ALTER TABLE dicom_study ADD x int")
    async with open_pool(postgres_settings(database)) as pool:
        await migrate(pool)
        async with pool.connection() as holding, holding.transaction():
            await holding.execute("SELECT * FROM dicom_study")
            with pytest.raises(DeadlineExceeded, match=r"migration 0\d+_alter: other transactions held"):
                await migrate(pool, [*migrations(), alter], patience=0)
        assert await migrate(pool, [*migrations(), alter]) == 1

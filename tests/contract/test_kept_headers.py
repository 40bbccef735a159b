"""Headers that are kept for study header documents: in memory, and beside the manifest."""

import contextlib

import pytest

from imaging_services.adapters.memory.study_headers import MemoryHeaders
from imaging_services.adapters.postgres.manifest import PostgresManifest
from imaging_services.adapters.postgres.migrate import migrate
from imaging_services.adapters.postgres.pool import open_pool
from imaging_services.adapters.postgres.study_headers import PostgresHeaders
from imaging_services.domain.manifest.query import Scope
from support.manifest_events import stored
from support.manifests import postgres_settings

STUDY, SERIES = "1.2", "1.2.1"


@contextlib.asynccontextmanager
async def postgres(database):
    async with open_pool(postgres_settings(database)) as pool:
        await migrate(pool)
        yield pool, PostgresManifest(pool, "processor.test")


@pytest.fixture(params=["memory", "postgres"])
async def headers(request):
    """What keeps them, the provider of a study of two instances, and the names of its objects."""
    if request.param == "memory":
        yield MemoryHeaders(), "north", ["a.dcm", "b.dcm"]
        return
    async with postgres(request.getfixturevalue("database")) as (pool, manifest):
        assert await manifest.record([stored(STUDY, SERIES, f"1.2.1.{n}") for n in (1, 2)]) == [None, None]
        found = await manifest.locate(Scope(STUDY))
        yield PostgresHeaders(pool), found[0].provider, [one.object_name for one in found]


async def test_what_is_kept_comes_back_and_more_can_be_added(headers):
    kept, provider, (first, second) = headers
    assert await kept.load(STUDY, provider) == {}
    await kept.save(STUDY, provider, {first: b"\x00one"})
    assert await kept.load(STUDY, provider) == {first: b"\x00one"}
    await kept.save(STUDY, provider, {second: b"two", first: b"\xffother"})
    assert await kept.load(STUDY, provider) == {first: b"\xffother", second: b"two"}


async def test_another_study_or_provider_has_none_of_it(headers):
    kept, provider, (first, _) = headers
    await kept.save(STUDY, provider, {first: b"one"})
    assert await kept.load("1.3", provider) == {}
    assert await kept.load(STUDY, "someone else") == {}


async def test_a_replaced_object_s_header_is_neither_returned_nor_kept(database):
    async with postgres(database) as (pool, manifest):
        kept = PostgresHeaders(pool)
        await manifest.record([stored(STUDY, SERIES, "1.2.1.1", content="old")])
        (old,) = await manifest.locate(Scope(STUDY))
        await kept.save(STUDY, old.provider, {old.object_name: b"old header"})
        await manifest.record([stored(STUDY, SERIES, "1.2.1.1", content="new")])
        (new,) = await manifest.locate(Scope(STUDY))
        assert new.object_name != old.object_name
        assert await kept.load(STUDY, old.provider) == {}
        await kept.save(STUDY, old.provider, {old.object_name: b"too late", new.object_name: b"new header"})
        assert await kept.load(STUDY, old.provider) == {new.object_name: b"new header"}


async def test_a_deleted_instance_takes_its_header_with_it(database):
    async with postgres(database) as (pool, manifest):
        await manifest.record([stored(STUDY, SERIES, "1.2.1.1")])
        (one,) = await manifest.locate(Scope(STUDY))
        await PostgresHeaders(pool).save(STUDY, one.provider, {one.object_name: b"header"})
        async with pool.connection() as connection:
            await connection.execute("DELETE FROM dicom_instance")
            cursor = await connection.execute("SELECT count(*) FROM instance_header")
            assert await cursor.fetchone() == (0,)


async def test_memory_is_bounded_and_forgets_what_was_not_asked_for_the_longest():
    kept = MemoryHeaders(limit=100)
    await kept.save("1", "north", {"a": bytes(40)})
    await kept.save("2", "north", {"b": bytes(40)})
    await kept.load("1", "north")
    await kept.save("3", "north", {"c": bytes(40)})
    assert await kept.load("2", "north") == {}
    assert await kept.load("1", "north") == {"a": bytes(40)}
    await kept.save("4", "north", {"d": bytes(400)})
    assert await kept.load("4", "north") == {}

"""Opening what is stored: the manifest for queries, and the storage space."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from imaging_services.adapters.cache.settings import SpaceCacheVariables
from imaging_services.adapters.cache.store import cached
from imaging_services.adapters.http.manifest import HttpManifest
from imaging_services.adapters.memory.study_headers import MemoryHeaders
from imaging_services.adapters.postgres.manifest import PostgresManifestQuery
from imaging_services.adapters.postgres.pool import open_pool
from imaging_services.adapters.postgres.settings import PostgresSettings
from imaging_services.adapters.postgres.study_headers import PostgresHeaders
from imaging_services.adapters.s3.space import open_space as space_at
from imaging_services.domain.errors import SettingsError
from imaging_services.domain.ports import KeptHeaders, ManifestQuery, ObjectStore

QueriedManifest = PostgresManifestQuery | HttpManifest


@asynccontextmanager
async def open_manifest(
    database: PostgresSettings | None, query_endpoint: str | None
) -> AsyncIterator[QueriedManifest]:
    """The manifest to query and to hold studies in: PostgreSQL itself where its settings are given, else the event
    processor's query API. Raises ``SettingsError`` when there is neither."""
    if database is not None:
        async with open_pool(database) as pool:
            yield PostgresManifestQuery(pool)
    elif query_endpoint:
        manifest = HttpManifest(query_endpoint)
        try:
            yield manifest
        finally:
            await manifest.close()
    else:
        raise SettingsError("no manifest to query: set DB_HOST and the other DB_ variables, or QUERY_ENDPOINT")


def kept_headers(manifest: ManifestQuery) -> KeptHeaders:
    """Where headers are kept for study header documents: beside the manifest when this service reaches the database
    itself, so that all of its processes share them, else in memory."""
    return PostgresHeaders(manifest.pool) if isinstance(manifest, PostgresManifestQuery) else MemoryHeaders()


@asynccontextmanager
async def open_space(
    config_path: Path, secret_path: Path | None, cache: SpaceCacheVariables | None = None
) -> AsyncIterator[ObjectStore]:
    """The storage space that the mounted files describe. Raises ``SettingsError`` when they describe none. ``cache`` is
    for who may read copies, and not for who looks what is really there."""
    space = space_at(config_path, secret_path)
    if cache is not None:
        space = await cached(space, cache)
    try:
        yield space
    finally:
        await space.close()

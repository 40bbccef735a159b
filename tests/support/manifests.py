"""Manifests for tests: the twin in memory, PostgreSQL, and PostgreSQL behind the query API."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import uvicorn
from fastapi import FastAPI

from imaging_services.adapters.http.manifest import HttpManifest
from imaging_services.adapters.memory.manifest import MemoryManifest
from imaging_services.adapters.postgres.manifest import PostgresManifest
from imaging_services.adapters.postgres.migrate import migrate
from imaging_services.adapters.postgres.pool import Pool, open_pool
from imaging_services.adapters.postgres.settings import PostgresSettings
from imaging_services.apps.event_driven_ingestion.routes import query_router
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.ports import Manifest

SOURCE = "processor.test"


def postgres_settings(database, **others) -> PostgresSettings:
    """Settings for a test database."""
    return PostgresSettings(
        host=database.host,
        port=database.port,
        name=database.name,
        user=database.user,
        password=database.password,
        **others,
    )


@asynccontextmanager
async def migrated_pool(database, **others) -> AsyncIterator[Pool]:
    """A pool on the database, with the schema in place."""
    async with open_pool(postgres_settings(database, **others)) as pool:
        await migrate(pool)
        yield pool


@asynccontextmanager
async def opened(kind: str, request) -> AsyncIterator[Manifest]:
    """``memory`` or ``postgres``."""
    if kind == "memory":
        yield MemoryManifest(SOURCE)
        return
    async with migrated_pool(request.getfixturevalue("database")) as pool:
        yield PostgresManifest(pool, SOURCE)


@asynccontextmanager
async def query_api(manifest: Manifest) -> AsyncIterator[HttpManifest]:
    """A client of the query API, served from this process."""
    app = FastAPI()
    app.include_router(query_router(manifest))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off"))
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    client = HttpManifest(f"http://127.0.0.1:{port}/query")
    try:
        yield client
    finally:
        await client.close()
        server.should_exit = True
        with suppress(asyncio.CancelledError):
            await task


async def published(manifest: Manifest) -> list[CloudEvent]:
    """Empty the outbox."""
    events: list[CloudEvent] = []

    async def take(batch) -> None:
        events.extend(batch)

    while await manifest.publish_pending(take):
        pass
    return events

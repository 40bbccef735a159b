"""The DICOMweb service: HTTP → storage space and events; manifest and storage space → HTTP."""

from contextlib import AsyncExitStack

import structlog
from fastapi import APIRouter

from imaging_services.adapters.files.spool import FileSpools
from imaging_services.adapters.http.guard import Guard
from imaging_services.adapters.http.server import serve
from imaging_services.apps.dicomweb_ingestion.app import build_app, prefixes
from imaging_services.apps.dicomweb_ingestion.qido import SearchLimits, qido_router
from imaging_services.apps.dicomweb_ingestion.settings import Settings
from imaging_services.apps.dicomweb_ingestion.stow import StowLimits, parse_size, stow_router
from imaging_services.apps.dicomweb_ingestion.wado import RetrieveLimits, wado_router
from imaging_services.domain.ingest.ingest import Ingest
from imaging_services.domain.ports import ObjectStore
from imaging_services.runtime import Lifecycle
from imaging_services.wiring.archive import open_manifest, open_space
from imaging_services.wiring.events import open_sink

log = structlog.get_logger(__name__)


async def main(settings: Settings, lifecycle: Lifecycle) -> None:
    """Serve until told to stop; requests under way are finished first."""
    settings.check()
    async with AsyncExitStack() as stack:
        space = await stack.enter_async_context(open_space(settings.BUCKET_CONFIG_PATH, settings.BUCKET_SECRET_PATH))
        stow = await _stow(settings, space, stack) if settings.stores else None
        read = await _read(settings, space, stack) if settings.reads else []
        app = Guard(build_app(prefixes(stow, read), settings.cors_origins), concurrency=settings.HTTP_CONCURRENCY)

        def listening(port: int) -> None:
            log.info("dicomweb listens", host=settings.HTTP_HOST, port=port, role=settings.DICOMWEB_ROLE)
            lifecycle.ready.set()

        await serve(
            app,
            settings.HTTP_HOST,
            settings.HTTP_PORT,
            lifecycle.stop,
            drain_seconds=settings.DRAIN_SECONDS,
            listening=listening,
        )


async def _stow(settings: Settings, space: ObjectStore, stack: AsyncExitStack) -> APIRouter:
    ingest = Ingest(
        space,
        await stack.enter_async_context(open_sink(settings, "dicomweb-ingestion")),
        FileSpools(settings.SPOOL_DIR),
        provider=settings.PROVIDER_NAME,
        source=settings.EVENT_SOURCE,
        wado_internal=settings.WADO_INTERNAL_ENDPOINT,
        wado_external=settings.WADO_EXTERNAL_ENDPOINT,
    )
    limits = StowLimits(
        max_body=parse_size(settings.MAX_STOW_SIZE),
        concurrency=settings.STOW_CONCURRENCY,
        memory=settings.STOW_MEMORY_BYTES,
    )
    return stow_router(ingest, limits)


async def _read(settings: Settings, space: ObjectStore, stack: AsyncExitStack) -> list[APIRouter]:
    manifest = await stack.enter_async_context(
        open_manifest(settings.postgres("dicomweb-ingestion"), settings.QUERY_ENDPOINT)
    )
    search = SearchLimits(settings.QUERY_DEFAULT_LIMIT, settings.QUERY_MAX_LIMIT)
    retrieve = RetrieveLimits(
        settings.WADO_READ_AHEAD_BYTES,
        settings.WADO_READ_AHEAD,
        settings.WADO_METADATA_CONCURRENCY,
        settings.WADO_METADATA_CACHE_BYTES,
    )
    external, provider = settings.WADO_EXTERNAL_ENDPOINT, settings.PROVIDER_NAME
    return [
        qido_router(manifest, provider, external_endpoint=external, limits=search),
        wado_router(manifest, space, provider, external_endpoint=external, limits=retrieve),
    ]

"""The DICOMweb service: HTTP → storage space and events; manifest and storage space → HTTP."""

from contextlib import AsyncExitStack

import structlog

from imaging_services.adapters.http.guard import Guard
from imaging_services.adapters.http.server import serve
from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.apps.dicomweb_ingestion.app import build_app
from imaging_services.apps.dicomweb_ingestion.delete import ObjectRemover
from imaging_services.apps.dicomweb_ingestion.routers import routers
from imaging_services.apps.dicomweb_ingestion.settings import Settings
from imaging_services.domain.ports import EventSink
from imaging_services.runtime import Lifecycle
from imaging_services.wiring.archive import QueriedManifest, kept_headers, open_manifest, open_space
from imaging_services.wiring.direct import open_recording_sink

log = structlog.get_logger(__name__)


async def main(settings: Settings, lifecycle: Lifecycle) -> None:
    """Serve until told to stop; requests under way are finished first."""
    settings.check()
    async with AsyncExitStack() as stack:
        space = await stack.enter_async_context(
            open_space(settings.BUCKET_CONFIG_PATH, settings.BUCKET_SECRET_PATH, settings)
        )
        manifest = await _manifest(settings, stack)
        kept = kept_headers(manifest) if manifest is not None else None
        remover = None
        if manifest is not None and settings.deletes:
            remover = ObjectRemover(manifest, space, settings.PROVIDER_NAME)
            await stack.enter_async_context(remover.running())
        workers = PixelWorkers()
        stack.callback(workers.close)
        served = routers(settings, space, await _sink(settings, stack), manifest, kept, remover, workers)
        app = build_app(served, settings.cors_origins, external_endpoint=settings.WADO_EXTERNAL_ENDPOINT)

        def listening(port: int) -> None:
            log.info("dicomweb listens", host=settings.HTTP_HOST, port=port, role=settings.DICOMWEB_ROLE)
            lifecycle.ready.set()

        await serve(
            Guard(app, concurrency=settings.HTTP_CONCURRENCY),
            settings.HTTP_HOST,
            settings.HTTP_PORT,
            lifecycle.stop,
            drain_seconds=settings.DRAIN_SECONDS,
            reuse_port=lifecycle.worker is not None,
            listening=listening,
        )


async def _sink(settings: Settings, stack: AsyncExitStack) -> EventSink | None:
    """Where events of stored and deleted instances go; None when nothing is stored or deleted."""
    if not (settings.stores or settings.deletes):
        return None
    return await stack.enter_async_context(open_recording_sink(settings, "dicomweb-ingestion", settings.EVENT_SOURCE))


async def _manifest(settings: Settings, stack: AsyncExitStack) -> QueriedManifest | None:
    """Where recorded instances are looked up; None when nothing is read."""
    if not settings.reads:
        return None
    opened = open_manifest(settings.postgres("dicomweb-ingestion"), settings.QUERY_ENDPOINT)
    return await stack.enter_async_context(opened)

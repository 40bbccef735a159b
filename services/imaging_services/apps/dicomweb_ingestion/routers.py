"""Which routers a service has, from its settings and what they work on: the one list that ``main`` and tests share."""

from collections.abc import Mapping, Sequence

from fastapi import APIRouter

from imaging_services.adapters.files.spool import FileSpools
from imaging_services.adapters.memory.study_headers import MemoryHeaders
from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.apps.dicomweb_ingestion.app import prefixes
from imaging_services.apps.dicomweb_ingestion.delete import ObjectRemover, delete_router
from imaging_services.apps.dicomweb_ingestion.qido import SearchLimits, qido_router
from imaging_services.apps.dicomweb_ingestion.rendered import rendered_router
from imaging_services.apps.dicomweb_ingestion.settings import Settings
from imaging_services.apps.dicomweb_ingestion.stow import StowLimits, parse_size, stow_router
from imaging_services.apps.dicomweb_ingestion.streaming.routes import streaming_routers
from imaging_services.apps.dicomweb_ingestion.wado import RetrieveLimits, wado_router
from imaging_services.apps.dicomweb_ingestion.wado_uri import wado_uri_router
from imaging_services.domain.ingest.ingest import Ingest
from imaging_services.domain.ports import EventSink, KeptHeaders, ManifestQuery, ObjectStore


def routers(
    settings: Settings,
    space: ObjectStore,
    sink: EventSink | None,
    manifest: ManifestQuery | None,
    kept: KeptHeaders | None = None,
    remover: ObjectRemover | None = None,
    workers: PixelWorkers | None = None,
) -> Mapping[str, Sequence[APIRouter]]:
    """The routers under their prefixes; without ``sink`` nothing is stored or deleted, without ``manifest`` nothing is
    read.
    ``kept``: where headers are kept for study header documents, by default in memory. ``remover``: removes objects of
    what is deleted; without it nothing is deleted. ``workers``: threads that decode and encode pixels."""
    workers = workers or PixelWorkers()
    stow = _stow(settings, space, sink) if settings.stores and sink is not None else None
    if manifest is None:
        return prefixes(stow, [])
    streaming = streaming_routers(
        manifest,
        space,
        kept or MemoryHeaders(),
        settings.PROVIDER_NAME,
        workers,
        cache_bytes=settings.STREAMING_CACHE_BYTES,
    )
    uri = wado_uri_router(manifest, space, settings.PROVIDER_NAME, workers)
    read = [*_read(settings, space, manifest, workers), streaming.studies, uri]
    if sink is not None and remover is not None:
        provider, source = settings.PROVIDER_NAME, settings.EVENT_SOURCE
        read.append(delete_router(manifest, sink, remover, provider=provider, source=source))
    return {**prefixes(stow, read), "": (*streaming.root, uri)}


def _stow(settings: Settings, space: ObjectStore, sink: EventSink) -> APIRouter:
    ingest = Ingest(
        space,
        sink,
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
    return stow_router(ingest, limits, settings.urgency())


def _read(settings: Settings, space: ObjectStore, manifest: ManifestQuery, workers: PixelWorkers) -> list[APIRouter]:
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
        wado_router(manifest, space, provider, external_endpoint=external, limits=retrieve, workers=workers),
        rendered_router(manifest, space, provider, workers, external_endpoint=external),
    ]

"""The routers of header and frame streaming: those at the root, and the one among a study's resources."""

from dataclasses import dataclass

from fastapi import APIRouter

from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.apps.dicomweb_ingestion.streaming.header_streaming import (
    header_document_router,
    header_streaming_router,
)
from imaging_services.apps.dicomweb_ingestion.streaming.image_streaming import image_streaming_router
from imaging_services.apps.dicomweb_ingestion.streaming.objects import StreamedObjects
from imaging_services.apps.dicomweb_ingestion.streaming.study_headers import StudyHeaders
from imaging_services.domain.ports import KeptHeaders, ManifestQuery, ObjectStore


@dataclass(frozen=True, slots=True)
class StreamingRouters:
    """``root`` belong under no prefix, ``studies`` under those of WADO-RS."""

    root: tuple[APIRouter, ...]
    studies: APIRouter


def streaming_routers(
    manifest: ManifestQuery,
    store: ObjectStore,
    kept: KeptHeaders,
    provider: str,
    workers: PixelWorkers,
    *,
    cache_bytes: int,
) -> StreamingRouters:
    """Image streaming and header streaming of the one partition that is here. ``cache_bytes``: header documents that
    are kept in memory; ``workers`` make JPEG and PNG."""
    headers = StudyHeaders(manifest, store, kept, provider, cache_bytes=cache_bytes)
    root = (
        image_streaming_router(manifest, StreamedObjects(store, workers), provider),
        header_streaming_router(headers, provider),
    )
    return StreamingRouters(root, header_document_router(headers, provider))

"""Routes of WADO-RS: what PS3.18 section 10.4 calls Retrieve, for what is recorded under this service's provider."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from imaging_services.adapters.pixels.transcoder import Transcoder
from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.apps.dicomweb_ingestion.frames import FrameRetriever
from imaging_services.apps.dicomweb_ingestion.instances import InstanceRetriever
from imaging_services.apps.dicomweb_ingestion.metadata import MetadataRetriever
from imaging_services.apps.dicomweb_ingestion.pieces import PieceSender
from imaging_services.apps.dicomweb_ingestion.resources import base_url, scope_of
from imaging_services.apps.dicomweb_ingestion.responses import partly
from imaging_services.domain.budget import ByteBudget
from imaging_services.domain.errors import NotFound
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ManifestQuery, ObjectStore
from imaging_services.domain.retrieve.present import present

log = structlog.get_logger(__name__)

STUDY = "/studies/{study}"
SERIES = STUDY + "/series/{series}"
INSTANCE = SERIES + "/instances/{instance}"


@dataclass(frozen=True, slots=True)
class RetrieveLimits:
    """``read_ahead_bytes``: what all requests together hold in advance; ``read_ahead``: objects a request has under
    way; ``headers``: headers decoded at once; ``metadata_bytes``: encoded metadata kept for the next request."""

    read_ahead_bytes: int = 64 * 1024 * 1024
    read_ahead: int = 8
    headers: int = 8
    metadata_bytes: int = 32 * 1024 * 1024


def wado_router(
    manifest: ManifestQuery,
    store: ObjectStore,
    provider: str,
    *,
    external_endpoint: str | None = None,
    limits: RetrieveLimits | None = None,
    workers: PixelWorkers | None = None,
) -> APIRouter:
    """Studies, series and instances, their metadata, frames and bulk data. ``workers`` transcode."""
    limits = limits or RetrieveLimits()
    sender = PieceSender(ByteBudget(limits.read_ahead_bytes), limits.read_ahead)
    transcoder = Transcoder(store, workers or PixelWorkers())
    instances = InstanceRetriever(store, sender, transcoder)
    metadata = MetadataRetriever(store, limits.headers, limits.metadata_bytes)
    frames = FrameRetriever(store, sender, transcoder)

    async def located(request: Request) -> list[InstanceLocation]:
        found = await manifest.locate(scope_of(request, provider))
        if not found:
            raise NotFound("there is no such study, series or instance here")
        return found

    async def retrieve(request: Request) -> Response:
        recorded = await located(request)
        found = present(recorded)
        answer = await instances.answer(
            request, found, base_url(request, external_endpoint), single="instance" in request.path_params
        )
        return partly(answer, recorded, found)

    async def retrieve_metadata(request: Request) -> Response:
        recorded = await located(request)
        found = present(recorded)
        return partly(await metadata.answer(request, found, base_url(request, external_endpoint)), recorded, found)

    async def retrieve_frames(request: Request) -> Response:
        (instance,) = present((await located(request))[:1])
        return await frames.frames(request, instance, base_url(request, external_endpoint))

    async def retrieve_bulk_data(request: Request) -> Response:
        (instance,) = present((await located(request))[:1])
        return await frames.bulk_data(request, instance, base_url(request, external_endpoint))

    router = APIRouter()
    for path in (INSTANCE, SERIES, STUDY):
        _get(router, path + "/metadata", retrieve_metadata)
        _get(router, path, retrieve)
    _get(router, INSTANCE + "/frames/{frames}", retrieve_frames)
    _get(router, INSTANCE + "/bulkdata/{path:path}", retrieve_bulk_data)
    return router


def _get(router: APIRouter, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
    router.add_api_route(path, endpoint, methods=["GET"], response_model=None)

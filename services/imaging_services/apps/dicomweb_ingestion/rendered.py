"""Routes of rendered resources and thumbnails (PS3.18 sections 10.4.1.1.3 and 10.4.1.1.4)."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.apps.dicomweb_ingestion.frames import frame_numbers
from imaging_services.apps.dicomweb_ingestion.rendered_answers import (
    Multipart,
    RenderedPart,
    Single,
    validators_of,
    warned,
)
from imaging_services.apps.dicomweb_ingestion.rendered_cache import Sources
from imaging_services.apps.dicomweb_ingestion.rendered_media import wanted_of
from imaging_services.apps.dicomweb_ingestion.rendered_parameters import rendered_presentation, thumbnail_presentation
from imaging_services.apps.dicomweb_ingestion.rendered_sources import FrameSource
from imaging_services.apps.dicomweb_ingestion.resources import base_url, instance_url, scope_of
from imaging_services.apps.dicomweb_ingestion.responses import not_modified, partly
from imaging_services.apps.dicomweb_ingestion.thumbnail import representative
from imaging_services.domain.errors import NotFound
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ManifestQuery, ObjectStore
from imaging_services.domain.retrieve.present import present

STUDY = "/studies/{study}"
SERIES = STUDY + "/series/{series}"
INSTANCE = SERIES + "/instances/{instance}"
FRAMES = INSTANCE + "/frames/{frames}"


def rendered_router(
    manifest: ManifestQuery,
    store: ObjectStore,
    provider: str,
    workers: PixelWorkers,
    *,
    external_endpoint: str | None = None,
) -> APIRouter:
    """``/rendered`` and ``/thumbnail`` of studies, series, instances and frames; ``workers`` bound the work."""
    renderer = Renderer(manifest, Sources(store, workers), provider, external_endpoint)
    router = APIRouter()
    for path in (FRAMES, INSTANCE, SERIES, STUDY):
        _get(router, path + "/rendered", renderer.rendered)
        _get(router, path + "/thumbnail", renderer.thumbnail)
    return router


class Renderer:
    """Answers requests for what people look at."""

    def __init__(self, manifest: ManifestQuery, sources: Sources, provider: str, external_endpoint: str | None) -> None:
        self._manifest, self._sources, self._provider = manifest, sources, provider
        self._external_endpoint = external_endpoint

    async def rendered(self, request: Request) -> Response:
        """All that the resource has, with the rendering that the parameters ask for."""
        presentation, warnings = rendered_presentation(request.query_params)
        wanted = wanted_of(request)
        recorded = await self._located(request)
        locations = present(recorded)
        headers = warned(request, validators_of(request, locations, "rendered"), warnings)
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        parts = await self._parts(request, locations)
        above = "instance" not in request.path_params
        if len(parts) > 1 or wanted.parts or (above and wanted.anything):
            return partly(Multipart(parts, wanted, presentation, headers, choosy=above), recorded, locations)
        source = await parts[0].open()
        single = Single(source, wanted.choose(source.media_types), presentation, headers)
        return partly(single, recorded, locations)

    async def thumbnail(self, request: Request) -> Response:
        """One small image."""
        presentation = thumbnail_presentation(request.query_params)
        wanted = wanted_of(request)
        locations = present(await self._located(request))
        headers = validators_of(request, locations, "thumbnail")
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        image = await representative(self._sources, locations)
        frames = request.path_params.get("frames")
        source = FrameSource(image, frame_numbers(frames)[0] if frames else image.representative)
        return Single(source, wanted.choose(source.media_types), presentation, headers)

    async def _located(self, request: Request) -> Sequence[InstanceLocation]:
        found = await self._manifest.locate(scope_of(request, self._provider))
        if not found:
            raise NotFound("there is no such study, series or instance here")
        return found

    async def _parts(self, request: Request, locations: Sequence[InstanceLocation]) -> Sequence[RenderedPart]:
        base = base_url(request, self._external_endpoint)
        if "frames" not in request.path_params:
            return [
                RenderedPart(
                    partial(self._sources.open, location),
                    f"{instance_url(base, location)}/rendered",
                )
                for location in locations
            ]
        numbers = frame_numbers(request.path_params["frames"])
        image = await self._sources.image(locations[0])
        for number in numbers:
            image.frames.layout.place(number)  # a frame beyond the last is found before anything is sent
        url = f"{instance_url(base, locations[0])}/frames"
        return [RenderedPart(FrameSource(image, number).opened, f"{url}/{number}/rendered") for number in numbers]


def _get(router: APIRouter, path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
    router.add_api_route(path, endpoint, methods=["GET"], response_model=None)

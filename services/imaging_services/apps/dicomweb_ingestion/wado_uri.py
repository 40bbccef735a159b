"""WADO-URI (PS3.18 section 9): one instance, as stored, transcoded or rendered, named by query parameters."""

from collections.abc import Sequence

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from imaging_services.adapters.pixels.transcoder import Transcoder
from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.apps.dicomweb_ingestion.negotiation import accepted
from imaging_services.apps.dicomweb_ingestion.rendered_answers import Single, validators_of
from imaging_services.apps.dicomweb_ingestion.rendered_cache import Sources
from imaging_services.apps.dicomweb_ingestion.rendered_media import names
from imaging_services.apps.dicomweb_ingestion.rendered_sources import (
    STILL,
    FrameSource,
    ImageSource,
    Source,
)
from imaging_services.apps.dicomweb_ingestion.responses import Pushed, Write, not_modified
from imaging_services.apps.dicomweb_ingestion.wado_uri_parameters import UriRequest, uri_request
from imaging_services.domain.dicom.media_types import DICOM, MediaRange, parse_accept
from imaging_services.domain.errors import BackendUnavailable, CannotTranscode, InvalidInput, NotFound
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ManifestQuery, ObjectStore
from imaging_services.domain.retrieve.stored_file import StoredFile, stored_size

WADO = "/wado"


def wado_uri_router(manifest: ManifestQuery, store: ObjectStore, provider: str, workers: PixelWorkers) -> APIRouter:
    """``GET /wado?requestType=WADO&studyUID=…&seriesUID=…&objectUID=…``."""
    service = UriService(manifest, store, provider, workers)
    router = APIRouter()
    router.add_api_route(WADO, service.answer, methods=["GET"], response_model=None)
    return router


class UriService:
    """Answers requests for single instances."""

    def __init__(self, manifest: ManifestQuery, store: ObjectStore, provider: str, workers: PixelWorkers) -> None:
        self._manifest, self._store, self._provider = manifest, store, provider
        self._sources = Sources(store, workers)
        self._transcoder = Transcoder(store, workers)

    async def answer(self, request: Request) -> Response:
        """The instance in the media type of ``contentType`` and Accept."""
        asked = uri_request(request.query_params, self._provider)
        found = await self._manifest.locate(asked.scope)
        if not found:
            raise NotFound("there is no such instance here")
        headers = validators_of(request, found[:1], "wado-uri")
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        source = None if self._needs_dicom(asked) else await self._source(found[0], asked)
        media_type = _choose(asked.content_type, accepted(request), _offered(source, asked))
        if source is None or media_type == DICOM:
            return await self._dicom(found[0], asked, headers)
        return Single(source, media_type, asked.presentation, headers)

    def _needs_dicom(self, asked: UriRequest) -> bool:
        """True when nothing but application/dicom fits the parameters."""
        return asked.transfer_syntax is not None or (asked.content_type or "").strip().lower() == DICOM

    async def _source(self, location: InstanceLocation, asked: UriRequest) -> Source | None:
        """The instance as something to look at, or one frame of it; None when it is nothing of the kind."""
        try:
            source = await self._sources.open(location)
        except CannotTranscode:
            if asked.image_only:
                raise
            return None
        if asked.frame is None:
            return source
        if not isinstance(source, ImageSource):
            raise InvalidInput("frameNumber: the instance is not an image")
        source.frames.layout.place(asked.frame)  # beyond the last one there is nothing to negotiate about
        return FrameSource(source, asked.frame)

    async def _dicom(self, location: InstanceLocation, asked: UriRequest, headers: dict[str, str]) -> Response:
        if asked.image_only:
            raise InvalidInput(f"{asked.image_only[0]} does not go together with contentType {DICOM}")
        if asked.transfer_syntax in (None, location.transfer_syntax_uid):
            return await self._stored(location, headers)
        transcoded = await self._transcoder.transcode(location, asked.transfer_syntax or "")

        async def produce(write: Write) -> None:
            async for block in transcoded.part10():
                await write(block)

        return Pushed(produce, DICOM, headers)

    async def _stored(self, location: InstanceLocation, headers: dict[str, str]) -> Response:
        file = StoredFile(self._store, location, await stored_size(self._store, location))

        async def produce(write: Write) -> None:
            sent = 0
            async for block in file.stream(0, file.size):
                sent += len(block)
                await write(block)
            if sent != file.size:
                raise BackendUnavailable(f"the object {location.object_name} is shorter than the manifest says")

        return Pushed(produce, DICOM, headers, file.size)


def _offered(source: Source | None, asked: UriRequest) -> Sequence[str]:
    """What there is, the default first (PS3.18 section 9.1.2.2: JPEG of a single-frame image, the object itself of a
    multi-frame one, HTML of a report). What PS3.18 forbids with application/dicom rules that out."""
    if source is None:
        return (DICOM,)
    if asked.image_only:
        return STILL if isinstance(source, ImageSource | FrameSource) else source.media_types
    if isinstance(source, ImageSource) and source.frames.count > 1:
        return (DICOM, *source.media_types)
    return (source.media_types[0], DICOM, *source.media_types[1:])


def _choose(content_type: str | None, accept: Sequence[MediaRange], offered: Sequence[str]) -> str:
    """The first of ``contentType`` that there is and that Accept lets through, else the first of Accept.

    Raises ``CannotTranscode`` (406).
    """
    wishes = accept if content_type is None else parse_accept(content_type)
    for wish in wishes:
        for media_type in offered:
            accepts = any(names(one, media_type) for one in accept)
            if accepts and not wish.is_multipart and names(wish, media_type):
                return media_type
    raise CannotTranscode(f"none of the media types asked for is available; available: {', '.join(offered)}")

"""WADO-URI (PS3.18 section 9): one instance, as stored, transcoded or rendered, named by query parameters."""

from collections.abc import Sequence
from dataclasses import replace

from fastapi import APIRouter
from pydicom import Dataset
from starlette.requests import Request
from starlette.responses import Response

from imaging_services.adapters.pixels.transcoder import Transcoder
from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.adapters.rendering.presentation_state import presentation_state_for
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
from imaging_services.domain.dicom.deidentification import Deidentifier
from imaging_services.domain.dicom.header import read_whole
from imaging_services.domain.dicom.media_types import DICOM, MediaRange, parse_accept
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN
from imaging_services.domain.errors import BackendUnavailable, CannotTranscode, InvalidInput, NotFound
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.ports import ManifestQuery, ObjectStore
from imaging_services.domain.retrieve.present import present
from imaging_services.domain.retrieve.stored_file import StoredFile, open_stored, stored_size

WADO = "/wado"

_LARGEST_STATE = 16 * 1024 * 1024
"""Bytes of a presentation state: it is read whole."""
_NOT_KEPT = {"Cache-Control": "no-store"}
"""What is anonymized has other UIDs each time: it is nothing to ask for again."""


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
        if asked.image_only and self._needs_dicom(asked):
            raise InvalidInput(f"{asked.image_only[0]} does not go together with contentType {DICOM}")
        found = await self._manifest.locate(asked.scope)
        if not found:
            raise NotFound("there is no such instance here")
        present(found[:1])
        states = present(await self._manifest.locate(asked.state)) if asked.state else []
        if asked.state and not states:
            raise NotFound("presentationUID: there is no such presentation state here")
        headers = _NOT_KEPT if asked.anonymize else validators_of(request, [*found[:1], *states[:1]], "wado-uri")
        unchanged = None if asked.anonymize else not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        source = None if self._needs_dicom(asked) else await self._source(found[0], asked)
        media_type = _choose(asked.content_type, accepted(request), _offered(source, asked))
        if source is None or media_type == DICOM:
            return await self._dicom(found[0], asked, headers)
        presentation = asked.presentation
        if states:
            state = presentation_state_for(await self._state(states[0]), found[0].sop_instance_uid)
            presentation = replace(presentation, state=state)
        return Single(source, media_type, presentation, headers)

    def _needs_dicom(self, asked: UriRequest) -> bool:
        """True when nothing but application/dicom fits the parameters."""
        return (
            asked.anonymize or asked.transfer_syntax is not None or (asked.content_type or "").strip().lower() == DICOM
        )

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

    async def _state(self, location: InstanceLocation) -> Dataset:
        file = await open_stored(self._store, location)
        if file.size > _LARGEST_STATE:
            raise CannotTranscode("presentationUID: the presentation state is too long to be applied")
        return await file.inspect(read_whole)

    async def _dicom(self, location: InstanceLocation, asked: UriRequest, headers: dict[str, str]) -> Response:
        if asked.image_only:
            raise InvalidInput(f"{asked.image_only[0]} does not go together with contentType {DICOM}")
        target = asked.transfer_syntax or location.transfer_syntax_uid
        edit = Deidentifier() if asked.anonymize else None
        if target == location.transfer_syntax_uid and edit is None:
            return await self._stored(location, headers)
        if target == EXPLICIT_VR_BIG_ENDIAN:
            target = EXPLICIT_VR_LITTLE_ENDIAN
        transcoded = await self._transcoder.transcode(location, target, edit)

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

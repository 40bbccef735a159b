"""``GET /wado/{partition}``: image streaming, which is WADO-URI with content types and frame numbers of its own."""

import re
from collections.abc import Mapping

from fastapi import APIRouter
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from imaging_services.adapters.rendering.encoding import JPEG, PNG
from imaging_services.apps.dicomweb_ingestion.streaming.objects import DICOM, FRAME, HEADER, PDF, StreamedObjects
from imaging_services.domain.dicom.media_types import parse_accept
from imaging_services.domain.dicom.uids import is_uid
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.query import InstanceLocation, Scope
from imaging_services.domain.ports import ManifestQuery
from imaging_services.domain.streaming.attribute_text import PIXEL_DATA

_UIDS = ("studyuid", "seriesuid", "objectuid")
_FRAME_NUMBER = re.compile(r"\s*([+-]?\d{1,9})\s*")
_STOP_TAG = re.compile(r"[0-9A-Fa-f]{8}")


class AnyCase(Convertor[str]):
    """The prefix ``wado`` in any letter case: clients write ``/WADO/``."""

    regex = "(?i:wado)"

    def convert(self, value: str) -> str:
        """As it came."""
        return value

    def to_string(self, value: str) -> str:
        """As it is."""
        return value


register_url_convertor("wado", AnyCase())


def image_streaming_router(manifest: ManifestQuery, objects: StreamedObjects, provider: str) -> APIRouter:
    """Frames, headers and files of the one partition that is here: the service's provider."""

    async def stream(request: Request) -> Response:
        partition = request.path_params["partition"]
        if partition != provider:
            raise HTTPException(400, f"there is no partition {partition!r} here" if partition else "no partition")
        parameters = _parameters(request)
        location = await _located(manifest, parameters, provider)
        return await _answer(objects, location, parameters, request.headers.get("accept"))

    router = APIRouter()
    router.add_api_route("/{prefix:wado}/{partition:path}", stream, methods=["GET"], response_model=None)
    return router


def _parameters(request: Request) -> dict[str, str]:
    """By lower-case name; the first of several counts. Refuses what is no WADO request."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        found.setdefault(name.lower(), value)
    if found.get("requesttype", "").upper() != "WADO":
        raise HTTPException(400, "requestType has to be WADO")
    return found


async def _located(manifest: ManifestQuery, parameters: Mapping[str, str], provider: str) -> InstanceLocation:
    uids = [parameters.get(name, "") for name in _UIDS]
    if not all(map(is_uid, uids)):
        raise HTTPException(400, "studyUID, seriesUID and objectUID are needed, each a UID")
    study, series, instance = uids
    found = await manifest.locate(Scope(study, series, instance, provider))
    if not found:
        raise HTTPException(400, "there is no such study, series or object on this partition")
    return found[0]


async def _answer(
    objects: StreamedObjects, location: InstanceLocation, parameters: Mapping[str, str], accept: str | None
) -> Response:
    """An explicit content type is never refused on account of Accept."""
    content_type = parameters.get("contenttype", "").strip().lower() or await _default(objects, location, accept)
    if content_type == DICOM:
        return await objects.file(location)
    if content_type == FRAME:
        return await objects.frame(location, _frame_index(parameters))
    if content_type == HEADER:
        return await objects.header(location, _stop_tag(parameters))
    if content_type == PDF:
        return await objects.pdf(location)
    if content_type in (JPEG, PNG):
        return await objects.rendered(location, _frame_index(parameters), content_type)
    raise HTTPException(400, f"content type {content_type[:80]!r} is not supported")


async def _default(objects: StreamedObjects, location: InstanceLocation, accept: str | None) -> str:
    """JPEG of a single-frame image for who takes it, else the file."""
    try:
        if accept is None or not any(item.covers(JPEG) for item in parse_accept(accept)):
            return DICOM
        return JPEG if await objects.frames(location) == 1 else DICOM
    except InvalidInput:
        return DICOM


def _frame_index(parameters: Mapping[str, str]) -> int:
    """From 0; what is no integer counts as absent."""
    number = _FRAME_NUMBER.fullmatch(parameters.get("framenumber", ""))
    index = int(number[1]) if number else 0
    if index < 0:
        raise HTTPException(400, "frameNumber counts from 0")
    return index


def _stop_tag(parameters: Mapping[str, str]) -> int:
    text = parameters.get("stoptag", "") or f"{PIXEL_DATA:08X}"
    if not _STOP_TAG.fullmatch(text) or int(text, 16) > PIXEL_DATA:
        raise HTTPException(400, "stopTag is a tag of eight hexadecimal digits, at most 7FE00010")
    return int(text, 16)

"""Routes of QIDO-RS: what PS3.18 section 10.6 calls Search, over this service's provider.

A page that follows another begins behind that one's last result, whatever has been stored or deleted since.

No match is 200 with an empty array: current editions of the Standard say so (section 10.6.3), earlier ones said 204,
which clients that decode the body of every answer stumble over.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from imaging_services.apps.dicomweb_ingestion.negotiation import choose_document
from imaging_services.apps.dicomweb_ingestion.page_ends import PageEnds, page_key
from imaging_services.apps.dicomweb_ingestion.resources import base_url, scope_of
from imaging_services.apps.dicomweb_ingestion.responses import json_answer
from imaging_services.apps.dicomweb_ingestion.search_parameters import Search, parse_search
from imaging_services.domain.dicom.json_values import UTF_8
from imaging_services.domain.dicom.media_types import DICOM_XML
from imaging_services.domain.dicom.multipart_writer import MultipartWriter
from imaging_services.domain.dicom.native_model import native_dicom_model
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.attributes import UNIQUE_KEYS
from imaging_services.domain.manifest.query import DicomJson, Level, Query
from imaging_services.domain.ports import ManifestQuery

_STUDY = "0020000D"
_SERIES = "0020000E"
_INSTANCE = "00080018"
_SPECIFIC_CHARACTER_SET = "00080005"
_RETRIEVE_URL = "00081190"
_ON_LOOP = 100
"""Results that are encoded in the event loop."""
_PATHS = {
    "/studies": Level.STUDY,
    "/series": Level.SERIES,
    "/instances": Level.IMAGE,
    "/studies/{study}/series": Level.SERIES,
    "/studies/{study}/instances": Level.IMAGE,
    "/studies/{study}/series/{series}/instances": Level.IMAGE,
}
_URL_PARTS = {
    Level.STUDY: (("studies", _STUDY),),
    Level.SERIES: (("studies", _STUDY), ("series", _SERIES)),
    Level.IMAGE: (("studies", _STUDY), ("series", _SERIES), ("instances", _INSTANCE)),
}


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """Results of one answer: ``default`` without a ``limit`` parameter, ``largest`` whatever it says."""

    default: int = 1000
    largest: int = 5000


def qido_router(
    manifest: ManifestQuery, provider: str, *, external_endpoint: str | None = None, limits: SearchLimits | None = None
) -> APIRouter:
    """Search for studies, series and instances."""
    limits = limits or SearchLimits()
    ends = PageEnds()

    def search_at(level: Level) -> Callable[[Request], Awaitable[Response]]:
        async def search(request: Request) -> Response:
            chosen = choose_document(request)
            scope = scope_of(request, provider)
            uids = {_STUDY: scope.study_instance_uid, _SERIES: scope.series_instance_uid}
            asked = parse_search(
                level,
                provider,
                {tag: uid for tag, uid in uids.items() if uid},
                request.query_params.multi_items(),
                default_limit=limits.default,
                max_limit=limits.largest,
            )
            pages = page_key(request.url.path, request.query_params.multi_items())
            results = await _search(manifest, asked.query, ends.behind(pages, asked.query.offset))
            more = len(results) > asked.limit
            results = results[: asked.limit]
            if more and results:
                last = tuple(results[-1][tag]["Value"][0] for tag in UNIQUE_KEYS[level])
                ends.remember(pages, asked.query.offset + len(results), last)
            base = base_url(request, external_endpoint)
            headers = _headers(request, asked, more=more)

            def answer() -> Response:
                page = [_with_url(level, base, result) for result in results]
                if chosen.media_type == DICOM_XML:
                    return _xml_answer(page, headers)
                return json_answer(page, chosen.media_type, headers)

            # What takes long must not hold up the others.
            return answer() if len(results) <= _ON_LOOP else await asyncio.to_thread(answer)

        return search

    router = APIRouter()
    for path, level in _PATHS.items():
        router.add_api_route(path, search_at(level), methods=["GET"], response_model=None)
    return router


async def _search(manifest: ManifestQuery, query: Query, after: tuple[str, ...] | None) -> list[DicomJson]:
    if after is not None:
        with contextlib.suppress(InvalidInput):  # that result is gone: the offset has to do, which names a bad value
            return await manifest.search(replace(query, offset=0, after=after))
    return await manifest.search(query)


def _with_url(level: Level, base: str, result: DicomJson) -> DicomJson:
    parts = [base]
    for name, tag in _URL_PARTS[level]:
        parts += [name, result[tag]["Value"][0]]
    url = {_RETRIEVE_URL: {"vr": "UR", "Value": ["/".join(parts)]}}
    # Wanted where there is more than ASCII (PS3.18 section 10.6.3.3); whoever makes a data set of it needs it.
    charset = {} if orjson.dumps(result).isascii() else {_SPECIFIC_CHARACTER_SET: {"vr": "CS", "Value": [UTF_8]}}
    return {**charset, **result, **url}


def _headers(request: Request, asked: Search, *, more: bool) -> dict[str, str]:
    warnings = list(asked.warnings)
    if more:
        warnings.append("There are additional results that can be requested")
    headers = {"Cache-Control": "no-cache, private", "Vary": "Accept, Accept-Encoding"}
    if warnings:
        host = request.url.netloc or "-"
        headers["Warning"] = ", ".join(f'299 {host} "{text}"' for text in warnings)
    return headers


def _xml_answer(page: list[DicomJson], headers: Mapping[str, str]) -> Response:
    writer = MultipartWriter()
    blocks = []
    for index, result in enumerate(page):
        blocks += [writer.head({"Content-Type": DICOM_XML}, first=index == 0), native_dicom_model(result)]
    content = b"".join([*blocks, writer.end])
    return Response(content, headers={**headers, "Content-Type": writer.content_type(DICOM_XML)})

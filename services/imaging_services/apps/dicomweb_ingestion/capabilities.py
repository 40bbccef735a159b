"""What the service says of itself: capabilities (PS3.18 section 8.9), the OpenAPI document and its page, Allow."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

from imaging_services.apps.dicomweb_ingestion.description.catalogue import Served
from imaging_services.apps.dicomweb_ingestion.description.openapi import MEDIA_TYPE, openapi_document
from imaging_services.apps.dicomweb_ingestion.description.page import HEADERS, openapi_page
from imaging_services.apps.dicomweb_ingestion.description.wadl import WADL, capabilities, to_wadl
from imaging_services.apps.dicomweb_ingestion.negotiation import accepted
from imaging_services.domain.dicom.media_types import JSON

OPENAPI_PATH = "/openapi.json"
PAGE_PATH = "/docs"
_CACHED = {"Cache-Control": "no-cache"}


class Root:
    """``OPTIONS`` on the root of a service; ``endpoint`` is its URL as clients know it."""

    def __init__(self, prefix: str, served: Sequence[Served], endpoint: str | None = None) -> None:
        self._prefix, self._endpoint = prefix, endpoint
        self._served = [one for one in served if one.prefix == prefix]

    async def answer(self, request: Request) -> Response:
        """The capabilities document, in WADL unless JSON is wanted more. Raises HTTP 406."""
        base = self._endpoint or f"{request.url.scheme}://{request.url.netloc}{self._prefix}"
        tree = capabilities(self._served, base.rstrip("/"))
        headers = {"Allow": "OPTIONS", "Vary": "Accept", **_CACHED}
        for wanted in accepted(request):
            if wanted.type in (WADL, "application/xml", "text/xml", "application/*", "*/*", "*"):
                return Response(to_wadl(tree), headers=headers, media_type=WADL)
            if wanted.type == JSON:
                return Response(orjson.dumps({"application": tree}), headers=headers, media_type=JSON)
        raise HTTPException(406, f"none of the accepted media types is available; available: {WADL}, {JSON}")


class Remaining:
    """What no route takes: 404, 405 with every method that the resource has, or these methods for ``OPTIONS``."""

    def __init__(self, prefix: str, served: Sequence[Served]) -> None:
        self._served = [one for one in served if one.prefix == prefix]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run as ASGI application."""
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        methods = methods_of(one for one in self._served if one.route.path_regex.match(path))
        if not methods:
            raise HTTPException(404, "there is no such resource")
        allow = {"Allow": ", ".join(sorted({*methods, "OPTIONS"}))}
        if scope["method"] != "OPTIONS":
            raise HTTPException(405, f"{scope['method'][:20]} is not served for this resource", headers=allow)
        await Response(status_code=204, headers=allow)(scope, receive, send)


def methods_of(served: Iterable[Served]) -> set[str]:
    """The methods of these operations; what has GET has HEAD."""
    methods = {one.method for one in served}
    return {*methods, "HEAD"} if "GET" in methods else methods


def openapi_routes(
    served: Sequence[Served],
) -> Iterator[tuple[str, Callable[[Request], Awaitable[Response]]]]:
    """Path and endpoint of ``/openapi.json`` and of the page made from it."""
    document = openapi_document(served)
    encoded, page = orjson.dumps(document), openapi_page(document)

    async def machine_readable(_request: Request) -> Response:
        return Response(encoded, headers=_CACHED, media_type=MEDIA_TYPE)

    async def readable(_request: Request) -> Response:
        return HTMLResponse(page, headers={**HEADERS, **_CACHED})

    yield OPENAPI_PATH, machine_readable
    yield PAGE_PATH, readable

"""The DICOMweb application: routers under their prefixes, what it says of itself, errors as problem documents."""

from collections.abc import Mapping, Sequence

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount

from imaging_services.apps.dicomweb_ingestion.capabilities import Remaining, Root, add_openapi, methods_of
from imaging_services.apps.dicomweb_ingestion.compression import Compression
from imaging_services.apps.dicomweb_ingestion.description.catalogue import served_operations
from imaging_services.apps.dicomweb_ingestion.head import Head
from imaging_services.apps.dicomweb_ingestion.problems import Unforeseen, install_problem_handlers

DICOMWEB_PREFIX = "/dicomweb"
STOW_PREFIX = "/stow-rs"
WADO_PREFIX = "/wado-rs"

_EXPOSED = (
    "Accept-Ranges",
    "Allow",
    "Content-Length",
    "Content-Location",
    "Content-Range",
    "ETag",
    "Location",
    "Retry-After",
    "Warning",
    "X-Correlation-Id",
)


def prefixes(stow: APIRouter | None, read: Sequence[APIRouter]) -> dict[str, list[APIRouter]]:
    """Which routers answer under which prefix: all under ``/dicomweb``, storing under ``/stow-rs``, searching and
    retrieving under ``/wado-rs``. ``read`` is empty, or ``stow`` None, when the service has only the other role."""
    served = {DICOMWEB_PREFIX: [*([stow] if stow else []), *read]}
    if stow:
        served[STOW_PREFIX] = [stow]
    if read:
        served[WADO_PREFIX] = list(read)
    return served


def build_app(
    served: Mapping[str, Sequence[APIRouter]],
    cors_origins: Sequence[str] = (),
    *,
    external_endpoint: str | None = None,
) -> FastAPI:
    """The ASGI application. A prefix may be empty: its routers are at the root, behind all others.

    ``cors_origins``: web pages of these origins may call what is served (viewers in a browser).
    ``external_endpoint``: the URL of what is retrieved from, as clients know it.
    """
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    operations = served_operations(served)
    app.add_middleware(Unforeseen)  # the innermost, then outwards
    app.add_middleware(Compression)
    app.add_middleware(Head)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=sorted({"OPTIONS", *methods_of(operations)}),
            allow_headers=["*"],
            expose_headers=_EXPOSED,
        )
    install_problem_handlers(app)
    add_openapi(app, operations)
    for prefix in sorted(served, reverse=True):
        together = APIRouter(redirect_slashes=False)
        for router in served[prefix]:
            together.include_router(router)
        if prefix:
            root = Root(prefix, operations, external_endpoint if prefix != STOW_PREFIX else None)
            app.add_api_route(prefix, root.answer, methods=["OPTIONS"], response_model=None)
            together.add_api_route("/", root.answer, methods=["OPTIONS"], response_model=None)
        together.routes.append(Mount("", app=Remaining(prefix, operations)))
        app.router.routes.append(Mount(prefix, app=together))
    return app

"""The DICOMweb application: routers under their prefixes, errors as problem documents."""

from collections.abc import Mapping, Sequence

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount

from imaging_services.apps.dicomweb_ingestion.problems import install_problem_handlers

DICOMWEB_PREFIX = "/dicomweb"
STOW_PREFIX = "/stow-rs"
WADO_PREFIX = "/wado-rs"


def prefixes(stow: APIRouter | None, read: Sequence[APIRouter]) -> dict[str, list[APIRouter]]:
    """Which routers answer under which prefix: all under ``/dicomweb``, storing under ``/stow-rs``, searching and
    retrieving under ``/wado-rs``. ``read`` is empty, or ``stow`` None, when the service has only the other role."""
    served = {DICOMWEB_PREFIX: [*([stow] if stow else []), *read]}
    if stow:
        served[STOW_PREFIX] = [stow]
    if read:
        served[WADO_PREFIX] = list(read)
    return served


def build_app(served: Mapping[str, Sequence[APIRouter]], cors_origins: Sequence[str] = ()) -> FastAPI:
    """The ASGI application; it has no documentation pages, the Standard is the documentation.

    ``cors_origins``: web pages of these origins may read the answers (viewers in a browser).
    """
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["Content-Location", "Content-Range", "ETag", "Warning", "X-Correlation-Id"],
        )
    install_problem_handlers(app)
    for prefix, routers in served.items():
        together = APIRouter(redirect_slashes=False)
        for router in routers:
            together.include_router(router)
        app.router.routes.append(Mount(prefix, app=together))
    return app

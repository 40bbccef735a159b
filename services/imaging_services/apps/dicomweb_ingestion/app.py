"""The DICOMweb application: routers under their prefixes, what it says of itself, errors as problem documents."""

from collections.abc import Iterator, Mapping, Sequence

from fastapi import APIRouter
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Match, Mount, Route, Router
from starlette.types import Scope

from imaging_services.apps.dicomweb_ingestion.capabilities import Remaining, Root, methods_of, openapi_routes
from imaging_services.apps.dicomweb_ingestion.compression import Compression
from imaging_services.apps.dicomweb_ingestion.description.catalogue import Served, routes_of, served_operations
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


class NamedRoute(Route):
    """Leaves itself in the request's scope, for log and metrics, which name the template of a path."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See ``BaseRoute``."""
        match, child_scope = super().matches(scope)
        if match is Match.FULL:
            child_scope["route"] = self
        return match, child_scope


def build_app(
    served: Mapping[str, Sequence[APIRouter]],
    cors_origins: Sequence[str] = (),
    *,
    external_endpoint: str | None = None,
) -> Starlette:
    """The ASGI application. A prefix may be empty: its routers are at the root, behind all others.

    Starlette's own routing: no endpoint here has parameters or models for FastAPI to fill, and its way to an endpoint
    costs as much again as all the rest of a short request.

    ``cors_origins``: web pages of these origins may call what is served (viewers in a browser).
    ``external_endpoint``: the URL of what is retrieved from, as clients know it.
    """
    operations = served_operations(served)
    app = Starlette()
    app.router.redirect_slashes = False
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
    app.router.routes += [NamedRoute(path, endpoint) for path, endpoint in openapi_routes(operations)]
    for prefix in sorted(served, reverse=True):
        app.router.routes += _below(prefix, served[prefix], operations, external_endpoint)
    return app


def _below(
    prefix: str, routers: Sequence[APIRouter], operations: Sequence[Served], external_endpoint: str | None
) -> Iterator[BaseRoute]:
    """What answers under a prefix: its root, its routes, and for the rest of it what says that there is nothing."""
    together: list[BaseRoute] = [
        NamedRoute(route.path, route.endpoint, methods=route.methods) for route in routes_of(routers)
    ]
    if prefix:
        root = Root(prefix, operations, external_endpoint if prefix != STOW_PREFIX else None)
        yield NamedRoute(prefix, root.answer, methods=["OPTIONS"])
        together.append(NamedRoute("/", root.answer, methods=["OPTIONS"]))
    together.append(Mount("", app=Remaining(prefix, operations)))
    yield Mount(prefix, app=Router(together, redirect_slashes=False))

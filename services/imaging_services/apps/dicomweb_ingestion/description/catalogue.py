"""Which operations a service has: the routes that it serves, each with its description."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fastapi import APIRouter
from fastapi.routing import APIRoute

from imaging_services.apps.dicomweb_ingestion.description import rendered, retrieve, search, store, streaming, wado_uri
from imaging_services.apps.dicomweb_ingestion.description.model import Operation

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    **search.OPERATIONS,
    **retrieve.OPERATIONS,
    **rendered.OPERATIONS,
    **wado_uri.OPERATIONS,
    **store.OPERATIONS,
    **streaming.OPERATIONS,
}
"""By method and path below the prefix."""


@dataclass(frozen=True)
class Served:
    """One operation as it can be called: ``path`` is a template below ``prefix``."""

    prefix: str
    method: str
    route: APIRoute

    @cached_property
    def path(self) -> str:
        """The template as URI templates are written: without Starlette's converters, a word in any letter case once."""
        return re.sub(r":\w+}", "}", re.sub(r"{\w+:(wado)}", r"\1", self.route.path))

    @property
    def operation(self) -> Operation | None:
        """Its description; a test sees to it that nothing which is served lacks one."""
        return OPERATIONS.get((self.method, self.path))


def served_operations(served: Mapping[str, Sequence[APIRouter]]) -> list[Served]:
    """Every operation of the routers under their prefixes."""
    return list(_each(served))


def _each(served: Mapping[str, Sequence[APIRouter]]) -> Iterator[Served]:
    for prefix, routers in served.items():
        for route in routes_of(routers):
            for method in sorted(route.methods or ()):
                yield Served(prefix, method, route)


def routes_of(routers: Sequence[APIRouter]) -> Iterator[APIRoute]:
    """The routes of the routers and of those that they include, in their order."""
    for router in routers:
        for route in router.routes:
            if isinstance(route, APIRoute):
                yield route
            else:  # a router that was included; FastAPI keeps it whole
                yield from routes_of([route.original_router])  # type: ignore[attr-defined]

"""The query API: the manifest over HTTP, for services that have no database of their own."""

from collections.abc import Awaitable
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import structlog
from fastapi import APIRouter, Request, Response

from imaging_services.domain.errors import ImagingError, InvalidInput
from imaging_services.domain.manifest import wire
from imaging_services.domain.ports import Manifest

log = structlog.get_logger(__name__)

_MAX_BODY = 4 * 1024 * 1024


def query_router(manifest: Manifest) -> APIRouter:
    """``/query/search``, ``/query/locate``, ``/query/associations/{id}``, ``/query/deleted-objects`` and
    ``/query/counts``. Errors are answered with the status of their class and
    ``{"error": <class>, "message": <sentence>}``."""
    router = APIRouter(prefix="/query")

    @router.post("/search")
    async def search(request: Request) -> Response:
        return await _answer(_search(manifest, request))

    @router.post("/locate")
    async def locate(request: Request) -> Response:
        return await _answer(_locate(manifest, request))

    @router.put("/associations/{association_id:path}")
    async def hold(association_id: str, request: Request) -> Response:
        return await _answer(_hold(manifest, association_id, request))

    @router.delete("/associations/{association_id:path}")
    async def release(association_id: str) -> Response:
        return await _answer(_release(manifest, association_id))

    @router.post("/deleted-objects")
    async def deleted_objects(request: Request) -> Response:
        return await _answer(_deleted_objects(manifest, request))

    @router.post("/deleted-objects/removed")
    async def objects_removed(request: Request) -> Response:
        return await _answer(_objects_removed(manifest, request))

    @router.get("/counts")
    async def counts() -> Response:
        return await _answer(_counts(manifest))

    return router


async def _answer(work: Awaitable[bytes]) -> Response:
    try:
        body = await work
    except ImagingError as error:
        log.warning("query not answered", error=type(error).__name__, reason=str(error))
        status, problem = wire.problem(error)
        return Response(problem, status, media_type="application/json")
    return Response(body, 200 if body else 204, media_type="application/json" if body else None)


async def _search(manifest: Manifest, request: Request) -> bytes:
    query = wire.read(wire.QUERY, await _body(request))
    return wire.RESULTS.dump_json(await manifest.search(query))


async def _locate(manifest: Manifest, request: Request) -> bytes:
    scope = wire.read(wire.SCOPE, await _body(request))
    return wire.LOCATIONS.dump_json(await manifest.locate(scope))


async def _deleted_objects(manifest: Manifest, request: Request) -> bytes:
    wanted = wire.read(wire.WAITING_OBJECTS, await _body(request))
    return wire.DELETED_OBJECTS.dump_json(await manifest.waiting_objects(wanted.provider, wanted.limit))


async def _objects_removed(manifest: Manifest, request: Request) -> bytes:
    removed = wire.read(wire.REMOVED_OBJECTS, await _body(request))
    await manifest.objects_removed(removed.provider, removed.objects)
    return b""


async def _hold(manifest: Manifest, association_id: str, request: Request) -> bytes:
    hold = wire.read(wire.HOLD, await _body(request))
    lease = timedelta(seconds=hold.lease_seconds)
    if hold.study_instance_uid is None:
        await manifest.renew(association_id, lease)
    else:
        await manifest.hold(association_id, hold.study_instance_uid, lease)
    return b""


async def _release(manifest: Manifest, association_id: str) -> bytes:
    await manifest.release(association_id)
    return b""


async def _counts(manifest: Manifest) -> bytes:
    document: dict[str, Any] = asdict(await manifest.counts())
    return wire.COUNTS.dump_json(document)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for block in request.stream():
        body += block
        if len(body) > _MAX_BODY:
            raise InvalidInput(f"the query is longer than {_MAX_BODY} bytes")
    return bytes(body)

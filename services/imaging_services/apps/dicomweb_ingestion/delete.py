"""Deleting studies, series and instances by ``DELETE``; PS3.18 has no such transaction, archives agree on this form."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from imaging_services.apps.dicomweb_ingestion.resources import scope_of
from imaging_services.domain.errors import ImagingError, NotFound
from imaging_services.domain.manifest.deletion import deletion_events
from imaging_services.domain.ports import DeletedObjects, EventSink, ManifestQuery, ObjectStore

log = structlog.get_logger(__name__)

_SERIES = "/studies/{study}/series/{series}"
_PATHS = ("/studies/{study}", _SERIES, _SERIES + "/instances/{instance}")
_LOOK_AGAIN = 60.0  # seconds; for what another replica, or one that died, has left
_AT_ONCE = 8


class ObjectRemover:
    """Removes from the storage space what the manifest no longer names.

    Any number of replicas may do so at once: what is to be removed is told by the manifest, which never names it again.
    """

    def __init__(self, deleted: DeletedObjects, space: ObjectStore, provider: str) -> None:
        self._deleted, self._space, self._provider = deleted, space, provider
        self._wanted = asyncio.Event()

    def wake(self) -> None:
        """There is something to remove."""
        self._wanted.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Remove in the background while the context lasts; what is left then waits for the next start."""
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(self._run())
            try:
                yield
            finally:
                task.cancel()

    async def _run(self) -> None:
        while True:
            self._wanted.clear()
            try:
                while await self.remove_some():
                    pass
            except ImagingError as error:
                log.warning("objects of deleted instances not removed yet", reason=str(error))
            try:
                await asyncio.wait_for(self._wanted.wait(), _LOOK_AGAIN)
            except TimeoutError:
                continue

    async def remove_some(self) -> int:
        """Remove the oldest objects; returns how many. Raises what the space and the manifest raise."""
        objects = await self._deleted.waiting_objects(self._provider)
        turns = asyncio.Semaphore(_AT_ONCE)

        async def remove(name: str) -> None:
            async with turns:
                await self._space.delete(name)

        results = await asyncio.gather(*(remove(one.object_name) for one in objects), return_exceptions=True)
        removed = [one for one, error in zip(objects, results, strict=True) if error is None]
        if removed:
            await self._deleted.objects_removed(self._provider, removed)
            log.info("objects of deleted instances removed", objects=len(removed))
        for error in results:
            if error is not None:
                raise error
        return len(removed)


def delete_router(
    manifest: ManifestQuery, sink: EventSink, remover: ObjectRemover, *, provider: str, source: str
) -> APIRouter:
    """``DELETE`` of a study, a series or an instance, within the provider.

    204 when the manifest has recorded the deletion: from then on it is neither found nor retrieved. Its objects are
    removed afterwards. ``source`` is the source of the events.
    """
    router = APIRouter()

    async def delete(request: Request) -> Response:
        scope = scope_of(request, provider)
        locations = await manifest.locate(scope)
        if not locations:
            raise NotFound("there is no such study, series or instance to delete")
        for event in deletion_events(source, provider, locations):
            await sink.send(event)
        log.info("instances deleted", study_instance_uid=scope.study_instance_uid, instances=len(locations))
        remover.wake()
        return Response(status_code=204)

    for path in _PATHS:
        router.add_api_route(path, delete, methods=["DELETE"], response_class=Response, include_in_schema=False)
    return router

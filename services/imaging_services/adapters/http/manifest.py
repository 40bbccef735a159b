"""Reading the manifest through the query API of the event processor (``QUERY_ENDPOINT``)."""

from collections.abc import Sequence
from datetime import timedelta
from urllib.parse import quote

from imaging_services.adapters.http.client import HttpOptions, HttpTarget
from imaging_services.domain.errors import BackendUnavailable, InvalidInput
from imaging_services.domain.manifest import wire
from imaging_services.domain.manifest.deletion import DeletedObject
from imaging_services.domain.manifest.query import DicomJson, InstanceLocation, Query, Scope

_JSON = {"content-type": "application/json"}
_ANSWERS = frozenset(range(400, 600))
_MAX_REPLY = 256 * 1024 * 1024


class HttpManifest:
    """``ManifestQuery``, ``StudyHolds`` and ``DeletedObjects`` over HTTP.

    ``endpoint`` is the base URL that ends in ``/query``. Raises what the event processor raised, by name;
    ``BackendUnavailable`` or ``DeadlineExceeded`` when it does not answer within ``timeout`` seconds.
    """

    def __init__(self, endpoint: str, *, timeout: float = 30) -> None:
        options = HttpOptions(timeout_seconds=timeout, connect_seconds=5, max_connections=64)
        self._target = HttpTarget(endpoint.rstrip("/"), options)

    async def search(self, query: Query) -> list[DicomJson]:
        """See ``ManifestQuery.search``."""
        try:
            body = wire.QUERY.dump_json(query)
        except ValueError:  # such as a lone surrogate, which no UTF-8 can say
            raise InvalidInput("a matching value is not text") from None
        return wire.answer(wire.RESULTS, await self._ask("POST", "/search", body))

    async def locate(self, scope: Scope) -> list[InstanceLocation]:
        """See ``ManifestQuery.locate``."""
        return wire.answer(wire.LOCATIONS, await self._ask("POST", "/locate", wire.SCOPE.dump_json(scope)))

    async def waiting_objects(self, provider: str, limit: int = 256) -> list[DeletedObject]:
        """See ``DeletedObjects.waiting_objects``."""
        body = wire.WaitingObjects(provider=provider, limit=limit).model_dump_json().encode()
        return wire.answer(wire.DELETED_OBJECTS, await self._ask("POST", "/deleted-objects", body))

    async def objects_removed(self, provider: str, objects: Sequence[DeletedObject]) -> None:
        """See ``DeletedObjects.objects_removed``."""
        removed = wire.RemovedObjects(provider=provider, objects=list(objects))
        await self._ask("POST", "/deleted-objects/removed", removed.model_dump_json().encode())

    async def hold(self, association_id: str, study_instance_uid: str, lease: timedelta) -> None:
        """See ``StudyHolds.hold``."""
        await self._put(association_id, wire.Hold(lease_seconds=_seconds(lease), study_instance_uid=study_instance_uid))

    async def renew(self, association_id: str, lease: timedelta) -> None:
        """See ``StudyHolds.renew``."""
        await self._put(association_id, wire.Hold(lease_seconds=_seconds(lease)))

    async def release(self, association_id: str) -> None:
        """See ``StudyHolds.release``."""
        await self._ask("DELETE", _association(association_id))

    async def close(self) -> None:
        """Give back connections."""
        await self._target.close()

    async def _put(self, association_id: str, hold: wire.Hold) -> None:
        await self._ask("PUT", _association(association_id), hold.model_dump_json().encode())

    async def _ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        reply = await self._target.request(
            method, path, content=body, headers=_JSON, accept=_ANSWERS, max_reply=_MAX_REPLY
        )
        if reply.status >= 400:
            raise wire.error_of(reply.status, reply.body)
        if reply.status not in (200, 204):
            raise BackendUnavailable(f"the query API answered {reply.status}")
        return reply.body


def _association(association_id: str) -> str:
    return f"/associations/{quote(association_id, safe='')}"


def _seconds(lease: timedelta) -> float:
    return min(lease.total_seconds(), wire.LONGEST_LEASE_SECONDS)

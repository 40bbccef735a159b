"""The manifest on PostgreSQL."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import psycopg
import structlog

from imaging_services.adapters.postgres import delete, outbox, revise
from imaging_services.adapters.postgres.pool import Connection, Pool, database_errors
from imaging_services.adapters.postgres.record import Batch, Prepared, Refusals, prepare, record
from imaging_services.adapters.postgres.search import search, search_sql
from imaging_services.adapters.postgres.sql import statement
from imaging_services.domain.errors import InvalidInput, PermanentError
from imaging_services.domain.events.envelope import EVENT_TYPES, CloudEvent
from imaging_services.domain.manifest.deletion import DeletedObject, Deletion
from imaging_services.domain.manifest.query import DicomJson, InstanceLocation, Query, Scope
from imaging_services.domain.manifest.recording import Recording, read_event
from imaging_services.domain.ports import Counts

log = structlog.get_logger(__name__)

_MAX_LEASE = timedelta(days=1)
_READ_SLICE = 64


class PostgresManifestQuery:
    """Reading the manifest and holding studies: for services that reach the database themselves.

    The pool stays the caller's: ``close`` leaves it open.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @property
    def pool(self) -> Pool:
        """The connections, for what is kept beside the manifest."""
        return self._pool

    async def search(self, query: Query) -> list[DicomJson]:
        """See ``ManifestQuery.search``."""
        search_sql(query)  # a bad query is answered as such, also when the database is away
        with database_errors("searching the manifest"):
            async with self._pool.connection() as connection:
                return await search(connection, query)

    async def locate(self, scope: Scope) -> list[InstanceLocation]:
        """See ``ManifestQuery.locate``."""
        rows = await self._execute(
            "locate",
            study=scope.study_instance_uid,
            series=scope.series_instance_uid,
            instance=scope.sop_instance_uid,
            provider=scope.provider,
        )
        return [InstanceLocation(*row) for row in rows]

    async def hold(self, association_id: str, study_instance_uid: str, lease: timedelta) -> None:
        """See ``StudyHolds.hold``; a lease of more than a day is a day."""
        await self._execute("hold", association=association_id, study=study_instance_uid, lease=min(lease, _MAX_LEASE))

    async def renew(self, association_id: str, lease: timedelta) -> None:
        """See ``StudyHolds.renew``."""
        await self._execute("renew", association=association_id, lease=min(lease, _MAX_LEASE))

    async def release(self, association_id: str) -> None:
        """See ``StudyHolds.release``."""
        await self._execute("release", association=association_id)

    async def waiting_objects(self, provider: str, limit: int = 256) -> list[DeletedObject]:
        """See ``DeletedObjects.waiting_objects``."""
        return [DeletedObject(*row) for row in await self._execute("waiting_objects", provider=provider, limit=limit)]

    async def objects_removed(self, provider: str, objects: Sequence[DeletedObject]) -> None:
        """See ``DeletedObjects.objects_removed``."""
        names = [one.object_name for one in objects]
        moments = [one.waiting_since for one in objects]
        await self._execute("objects_removed", provider=provider, names=names, moments=moments)

    async def close(self) -> None:
        """Nothing of its own to give back."""

    async def _execute(self, name: str, **parameters: object) -> list[tuple[Any, ...]]:
        for value in parameters.values():
            if isinstance(value, str) and ("\x00" in value or len(value) > 1024):
                raise InvalidInput(f"{name}: a value holds NUL or is longer than 1024 characters")
        with database_errors(f"manifest query {name}"):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(statement(name), parameters)
                return await cursor.fetchall() if cursor.description else []


class PostgresManifest(PostgresManifestQuery):
    """The manifest as the event processor writes it.

    ``source`` is the CloudEvents source of events made here. ``queued`` are the types that are to be published: with a
    broker that delivers ``ImageStoredEvent`` itself, these must not go back to it. A publisher that the database has
    not heard of for ``publishing`` loses its turn.
    """

    def __init__(
        self,
        pool: Pool,
        source: str,
        queued: frozenset[str] = EVENT_TYPES,
        publishing: timedelta = timedelta(minutes=1),
    ) -> None:
        super().__init__(pool)
        self._source = source
        self._publishing = publishing
        self._queued = sorted(queued)

    async def record(
        self, events: Sequence[CloudEvent], turn: Callable[[], Awaitable[object]] | None = None
    ) -> list[PermanentError | None]:
        """See ``Manifest.record``. A later instance of a study or series fills attributes that are absent there, and
        changes none that is set."""
        read = await _read(events, self._queued)
        whole = prepare(self._batch(read, read.documents)) if read.documents else None
        if turn:
            await turn()
        results: list[PermanentError | None] = [read.refused.get(position) for position in range(len(events))]
        if whole:
            with database_errors("recording a batch"):
                async with self._pool.connection() as connection:
                    refused = await self._record(connection, read, whole)
            for position, error in refused.items():
                results[position] = error
        if read.deletions:
            with database_errors("deleting instances"):
                async with self._pool.connection() as connection:
                    for one in read.deletions:
                        await delete.delete(connection, one, self._queued)
        return results

    def _batch(self, read: "_Read", positions: Collection[int]) -> Batch:
        recordings = {position: read.recordings[position] for position in positions if position in read.recordings}
        others = {position: read.others[position] for position in positions if position in read.others}
        return Batch(recordings, others, read.documents, self._source, self._queued)

    async def _record(self, connection: Connection, read: "_Read", prepared: Prepared) -> dict[int, PermanentError]:
        """One transaction; halved when the database refuses a value, until the event that holds it is alone."""
        positions = sorted([*prepared.batch.recordings, *prepared.batch.others])
        try:
            return dict(await self._commit(connection, prepared))
        except (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded) as error:
            log.warning("batch refused by the database", events=len(positions), reason=type(error).__name__)
            if len(positions) == 1:
                reason = f"the manifest cannot hold this event: {type(error).__name__}"
                return dict.fromkeys(positions, InvalidInput(reason))
        half = len(positions) // 2
        refused: dict[int, PermanentError] = {}
        for part in (positions[:half], positions[half:]):
            refused |= await self._record(connection, read, prepare(self._batch(read, part)))
        return refused

    async def _commit(self, connection: Connection, prepared: Prepared) -> Refusals:
        """The one place where a batch is recorded."""
        return await record(connection, prepared)

    async def revise(self, quiet: timedelta, limit: int = 32) -> int:
        """See ``Manifest.revise``."""
        return await revise.revise(self._pool, quiet, limit, self._source)

    async def publish_pending(
        self, publish: Callable[[Sequence[CloudEvent]], Awaitable[None]], limit: int = 256
    ) -> int:
        """See ``Manifest.publish_pending``; one publisher at a time, an event refused for good is set aside."""
        return await outbox.publish_pending(self._pool, publish, limit, self._publishing)

    async def counts(self) -> Counts:
        """See ``Manifest.counts``."""
        with database_errors("counting the manifest"):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(statement("counts"))
                studies, series, instances, events = await cursor.fetchone() or (0, 0, 0, 0)
                return Counts(int(studies), int(series), int(instances), int(events))


@dataclass(slots=True)
class _Read:
    """Events as they were read, by position: ``documents`` are those of recordings and others, as they wait."""

    recordings: dict[int, Recording] = field(default_factory=dict)
    others: dict[int, CloudEvent] = field(default_factory=dict)
    documents: dict[int, bytes] = field(default_factory=dict)
    deletions: list[Deletion] = field(default_factory=list)
    refused: dict[int, PermanentError] = field(default_factory=dict)


async def _read(events: Sequence[CloudEvent], queued: Collection[str]) -> _Read:
    """Decode events, and compress what is to be published, letting others run in between."""
    read = _Read()
    for position, event in enumerate(events):
        if position % _READ_SLICE == _READ_SLICE - 1:
            await asyncio.sleep(0)
        try:
            found = read_event(event)
        except PermanentError as error:
            read.refused[position] = error
            continue
        if isinstance(found, Deletion):
            read.deletions.append(found)
            continue
        if found:
            read.recordings[position] = found
        else:
            read.others[position] = event
        read.documents[position] = outbox.packed(event) if event.type in queued else b""
    return read

"""Recording what was recorded before: of a database that is lost."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from imaging_services.adapters.postgres.manifest import PostgresManifest
from imaging_services.adapters.postgres.pool import Connection, Pool, database_errors
from imaging_services.adapters.postgres.record import Batch, Prepared, Refusals, prepare, record
from imaging_services.adapters.postgres.sql import statement
from imaging_services.domain.errors import Conflict, ObjectDeleted, Superseded
from imaging_services.domain.events.envelope import EVENT_TYPES
from imaging_services.domain.manifest.deletion import earlier_names
from imaging_services.domain.manifest.recording import Recording

_PAGE = 500


class PostgresRebuild(PostgresManifest):
    """The manifest as a rebuild writes it.

    Studies begin at the revision ``first_revision``: subscribers know lower ones, and leave out what comes behind them.
    Unless ``announce``, nothing is published of what is recorded, and no revision follows from it.
    """

    def __init__(self, pool: Pool, source: str, *, announce: bool, first_revision: int) -> None:
        super().__init__(pool, source, EVENT_TYPES if announce else frozenset())
        self._announce, self._first_revision = announce, first_revision
        self._begun = datetime.now(UTC)

    async def begin(self, provider: str, *, go_on: bool = False) -> None:
        """Before anything is recorded. Raises ``Conflict`` when the provider has instances that no unfinished rebuild
        has recorded, unless the rebuild is to ``go_on`` beside them: what is recorded then stays as it is."""
        with database_errors("beginning the rebuild"):
            async with self._pool.connection() as connection:
                await connection.execute(statement("begin_rebuild"), {"provider": provider, "go_on": go_on})
                cursor = await connection.execute(statement("rebuild_begun"), {"provider": provider})
                row = await cursor.fetchone()
        if row is None:
            raise Conflict(
                f"the manifest holds instances of {provider!r}: a rebuild is for an empty one; "
                "imaging audit --repair records what is missing there, --go-on rebuilds beside them"
            )
        self._begun = row[0]

    async def _commit(self, connection: Connection, prepared: Prepared) -> Refusals:
        batch = prepared.batch
        # In their order: searches list the latest study first, and of studies of one batch the last.
        uids = list(dict.fromkeys(one.study_instance_uid for one in batch.recordings.values()))
        async with connection.transaction():
            await connection.execute(statement("lock_uids"), {"uids": batch.lock_uids})
            await connection.execute(statement("begin_studies"), {"uids": uids, "revision": self._first_revision})
            cursor = await connection.execute(statement("changed_studies"), {"uids": uids})
            changed = [row[0] for row in await cursor.fetchall()]
            refused = await self._passed_over(connection, batch)
            refused |= await record(connection, prepare(_without(batch, refused)) if refused else prepared)
            await self._delete_earlier(connection, _without(batch, refused))
            if not self._announce:
                await connection.execute(statement("forget_changes"), {"uids": uids, "others": changed})
        return refused

    async def _passed_over(self, connection: Connection, batch: Batch) -> Refusals:
        """What was deleted after it was written, and other versions of what was recorded before the rebuild."""
        ones = batch.recordings
        parameters = {
            "places": list(ones),
            **_columns([*ones.values()]),
            "names": [one.object_name for one in ones.values()],
            "identities": [one.identity for one in ones.values()],
            "begun": self._begun,
        }
        cursor = await connection.execute(statement("rebuild_conflicts"), parameters)
        refused: Refusals = {}
        for place, deleted, instance in await cursor.fetchall():
            one = ones[place]
            if deleted:
                refused[place] = ObjectDeleted(f"{one.sop_instance_uid} was deleted")
                continue
            refused[place] = Superseded(f"another version of {one.sop_instance_uid} is recorded")
            left = {"id": instance, "name": one.object_name, "digest": one.digest}
            await connection.execute(statement("leave_behind"), left)
        return refused

    async def _delete_earlier(self, connection: Connection, batch: Batch) -> None:
        """An object with a number in its name says that its bytes had been deleted under the names before."""
        earlier = [(one, name) for one in batch.recordings.values() for name in earlier_names(one.object_name)]
        if earlier:
            parameters = {
                **_columns([one for one, _ in earlier]),
                "buckets": [one.bucket_name for one, _ in earlier],
                "names": [name for _, name in earlier],
            }
            await connection.execute(statement("delete_earlier"), parameters)

    async def finish(self, provider: str) -> None:
        """Everything is recorded: what follows belongs to the revision after the first."""
        with database_errors("finishing the rebuild"):
            async with self._pool.connection() as connection:
                connection.patience = None
                after: str | None = None if self._announce else ""
                while after is not None:
                    after = await self._end_first_revision(connection, after)
                await connection.execute(statement("end_rebuild"), {"provider": provider})

    async def _end_first_revision(self, connection: Connection, after: str) -> str | None:
        """Of some studies behind ``after``; returns the last, None: there is none. They are locked first, as for
        recording and in its order, so that a study that changes at this moment keeps its revision."""
        async with connection.transaction():
            await connection.execute("SET LOCAL statement_timeout = 0")
            page = {"revision": self._first_revision, "after": after, "limit": _PAGE}
            cursor = await connection.execute(statement("first_revision_studies"), page)
            uids = [row[0] for row in await cursor.fetchall()]
            if not uids:
                return None
            for lock in ("lock_uids", "lock_studies"):
                await connection.execute(statement(lock), {"uids": uids})
            parameters = {"uids": uids, "revision": self._first_revision}
            await connection.execute(statement("end_first_revision"), parameters)
            return str(uids[-1])


def _without(batch: Batch, refused: Refusals) -> Batch:
    kept = {place: one for place, one in batch.recordings.items() if place not in refused}
    return replace(batch, recordings=kept)


def _columns(recordings: list[Recording]) -> dict[str, list[Any]]:
    """What names the instances, and when they were written."""
    return {
        "studies": [one.study_instance_uid for one in recordings],
        "series": [one.series_instance_uid for one in recordings],
        "instances": [one.sop_instance_uid for one in recordings],
        "providers": [one.provider for one in recordings],
        "moments": [one.accepted_at for one in recordings],
    }

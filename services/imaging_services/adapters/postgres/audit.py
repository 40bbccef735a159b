"""The manifest as an audit reads and mends it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from imaging_services.adapters.postgres.pool import Pool, database_errors
from imaging_services.adapters.postgres.sql import statement
from imaging_services.domain.audit.model import Entry, Role, Version
from imaging_services.domain.manifest.recording import InstanceKey

_PAGE = 5000


class PostgresAudit:
    """See ``AuditedManifest``: one provider, and the ``bucket`` in which its objects lie."""

    def __init__(self, pool: Pool, provider: str, bucket: str | None) -> None:
        self._pool, self._provider, self._bucket = pool, provider, bucket

    async def total(self) -> int:
        """See ``AuditedManifest.total``."""
        ((total,),) = await self._execute("audit_total", provider=self._provider)
        return int(total)

    async def entries(self, after: str = "") -> AsyncIterator[list[Entry]]:
        """See ``AuditedManifest.entries``.

        A cursor that outlives its transaction: the server reads and sorts once, keeps the result (on its disk when it
        is long) and holds back no vacuum meanwhile. An index on the names would cost every recorded instance instead.
        """
        parameters = {"provider": self._provider, "bucket": self._bucket, "after": after, "names": None}
        with database_errors("reading the manifest"):
            async with self._pool.connection() as connection:
                connection.patience = None
                await connection.execute("SET statement_timeout = 0")
                try:
                    async with connection.cursor("imaging_audit", withhold=True) as cursor:
                        await cursor.execute(statement("audit_entries"), parameters)
                        while rows := await cursor.fetchmany(_PAGE):
                            yield [_entry(row) for row in rows]
                finally:
                    if not connection.closed:
                        await connection.execute("RESET statement_timeout")

    async def entries_of(self, names: Sequence[str]) -> list[Entry]:
        """See ``AuditedManifest.entries_of``."""
        rows = await self._execute(
            "audit_entries", provider=self._provider, bucket=self._bucket, after=None, names=list(names)
        )
        return [_entry(row) for row in rows]

    async def instances(self, entries: Sequence[Entry]) -> dict[int, InstanceKey]:
        """See ``AuditedManifest.instances``."""
        ids, names = [one.instance_id for one in entries], [one.object_name for one in entries]
        marked = [one.role is Role.MARKED for one in entries]
        rows = await self._execute("audit_instances", ids=ids, names=names, marked=marked)
        return {row[0]: (row[1], row[2], row[3]) for row in rows}

    async def versions(self, keys: Sequence[InstanceKey]) -> dict[InstanceKey, Version]:
        """See ``AuditedManifest.versions``."""
        studies, series, instances = ([key[part] for key in keys] for part in range(3))
        rows = await self._execute(
            "audit_versions", provider=self._provider, studies=studies, series=series, instances=instances
        )
        return {(row[0], row[1], row[2]): Version(*row[3:]) for row in rows}

    async def mark_missing(self, instances: Mapping[int, str]) -> None:
        """See ``AuditedManifest.mark_missing``."""
        await self._execute("mark_missing", ids=list(instances), names=list(instances.values()))

    async def unmark(self, instances: Sequence[int]) -> None:
        """See ``AuditedManifest.unmark``."""
        await self._execute("unmark_missing", ids=list(instances))

    async def leave_behind(self, instance: int, name: str, digest: str) -> None:
        """See ``AuditedManifest.leave_behind``."""
        await self._execute("leave_behind", id=instance, name=name, digest=digest)

    async def deletions(self, keys: Sequence[InstanceKey]) -> dict[InstanceKey, datetime]:
        """See ``AuditedManifest.deletions``."""
        studies, series, instances = ([key[part] for key in keys] for part in range(3))
        rows = await self._execute(
            "audit_deletions", provider=self._provider, studies=studies, series=series, instances=instances
        )
        return {(row[0], row[1], row[2]): row[3] for row in rows}

    async def successor(self, name: str) -> tuple[str, str | None] | None:
        """See ``AuditedManifest.successor``."""
        rows = await self._execute("audit_successor", provider=self._provider, name=name)
        return (rows[0][0], rows[0][1]) if rows else None

    async def await_removal(self, names: Sequence[str]) -> None:
        """See ``AuditedManifest.await_removal``."""
        await self._execute("await_removal", provider=self._provider, names=list(names))

    async def _execute(self, query: str, **parameters: object) -> list[tuple[Any, ...]]:
        with database_errors(f"auditing the manifest, {query}"):
            async with self._pool.connection() as connection, connection.transaction():
                connection.patience = None
                await connection.execute(
                    "SET LOCAL statement_timeout = 0"
                )  # names have no index: a scan takes its time
                cursor = await connection.execute(statement(query), parameters)
                return await cursor.fetchall() if cursor.description else []


def _entry(row: tuple[Any, ...]) -> Entry:
    name, role, instance, size, digest = row
    return Entry(name, Role(role), instance, size, digest)

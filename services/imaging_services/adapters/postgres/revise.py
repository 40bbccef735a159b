"""Announcing quiet studies."""

from collections import defaultdict
from datetime import timedelta

from imaging_services.adapters.postgres.outbox import queue
from imaging_services.adapters.postgres.pool import Connection, Pool, database_errors
from imaging_services.adapters.postgres.sql import statement
from imaging_services.domain.manifest.revision import InstanceState, SeriesState, deleted_series, study_revision


async def revise(pool: Pool, quiet: timedelta, limit: int, source: str) -> int:
    """Make the next revision of at most ``limit`` quiet studies, one transaction each; returns how many.

    One study at a time, so that no study's lock waits for another's revision to be built.
    """
    with database_errors("revising studies"):
        async with pool.connection() as connection:
            await connection.execute(statement("forget_associations"))
            revised = 0
            while revised < limit and await _revise_one(connection, quiet, source):
                revised += 1
            return revised


async def _revise_one(connection: Connection, quiet: timedelta, source: str) -> bool:
    async with connection.transaction():
        cursor = await connection.execute(statement("claim_quiet_studies"), {"quiet": quiet, "limit": 1})
        claimed = await cursor.fetchone()
        if claimed is None:
            return False
        study, uid, revision, attributes, urgent = claimed
        series = [*await _series(connection, study), *await _deleted(connection, study, revision)]
        await queue(connection, study_revision(source, uid, revision, attributes, series, urgent=urgent))
        await connection.execute(statement("close_revision"), {"study": study})
    return True


async def _series(connection: Connection, study: int) -> list[SeriesState]:
    instances: dict[int, list[InstanceState]] = defaultdict(list)
    cursor = await connection.execute(statement("instances_of_study"), {"study": study})
    for series_id, *columns in await cursor.fetchall():
        instances[series_id].append(InstanceState(*columns))
    cursor = await connection.execute(statement("series_of_study"), {"study": study})
    series = []
    for series_id, series_uid, modality, number, provider, wado_external, recorded in await cursor.fetchall():
        members = tuple(instances[series_id])
        series.append(SeriesState(series_uid, modality, number, provider, wado_external, recorded, members))
    return series


async def _deleted(connection: Connection, study: int, revision: int) -> list[SeriesState]:
    """What is gone, as series of their own: the rest of a series may be gone, or be another provider's by now."""
    cursor = await connection.execute(statement("deletions_of_study"), {"study": study, "revision": revision})
    return [
        deleted_series(series, provider, [InstanceState(instance, "", None, initial, deleted_revision=deleted)])
        for series, provider, instance, initial, deleted in await cursor.fetchall()
    ]

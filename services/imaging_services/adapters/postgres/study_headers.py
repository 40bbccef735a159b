"""Kept headers of instances on PostgreSQL, beside the manifest."""

from collections.abc import Mapping

from imaging_services.adapters.postgres.pool import Pool, database_errors
from imaging_services.adapters.postgres.sql import statement


class PostgresHeaders:
    """See ``KeptHeaders``. They go away with their instances. The pool stays the caller's."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def load(self, study_instance_uid: str, provider: str) -> dict[str, bytes]:
        """See ``KeptHeaders.load``."""
        parameters = {"study": study_instance_uid, "provider": provider}
        with database_errors("reading kept headers"):
            async with self._pool.connection() as connection, connection.cursor(binary=True) as cursor:
                await cursor.execute(statement("load_headers"), parameters)
                return dict(await cursor.fetchall())

    async def save(self, study_instance_uid: str, provider: str, headers: Mapping[str, bytes]) -> None:
        """See ``KeptHeaders.save``."""
        names = sorted(headers)  # one order for all, so that two writers do not wait for one another in a circle
        parameters = {
            "study": study_instance_uid,
            "provider": provider,
            "names": names,
            "headers": [headers[name] for name in names],
        }
        with database_errors("keeping headers"):
            async with self._pool.connection() as connection:
                await connection.execute(statement("save_headers"), parameters)

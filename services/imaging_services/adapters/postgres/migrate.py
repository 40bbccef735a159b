"""The schema as numbered SQL files, applied once, in order, by whichever process starts first."""

import hashlib
import re
from dataclasses import dataclass
from importlib import resources

import structlog
from psycopg.rows import tuple_row

from imaging_services.adapters.postgres.pool import Connection, Pool, database_errors
from imaging_services.domain.errors import SettingsError

log = structlog.get_logger(__name__)

_LOCK = 0x494D4147_4D494752  # "IMAGMIGR": any number that nobody else in this database uses
_FILE = re.compile(r"([0-9]{4})_([a-z0-9_]+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, name and statements."""

    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """Hex SHA-256 of the statements."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """All migrations that this version knows, in order."""
    folder = resources.files("imaging_services.adapters.postgres") / "migrations"
    found = []
    for entry in folder.iterdir():
        match = _FILE.fullmatch(entry.name)
        if match:
            found.append(Migration(int(match[1]), match[2], entry.read_text("utf-8")))
    return sorted(found, key=lambda one: one.number)


async def migrate(pool: Pool, known: list[Migration] | None = None) -> int:
    """Bring the schema up to date; returns how many migrations were applied.

    Several processes may start at once: one works, the others wait. Raises ``SettingsError`` when the database is
    newer than this version, or when a file was changed after it had been applied.
    """
    todo = migrations() if known is None else known
    with database_errors("migrating the manifest database"):
        async with pool.connection() as connection, connection.transaction():
            await connection.execute("SET LOCAL statement_timeout = 0")
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            return await _apply(connection, todo)


async def _apply(connection: Connection, known: list[Migration]) -> int:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migration (number int PRIMARY KEY, name text NOT NULL,"
        " checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    cursor = connection.cursor(row_factory=tuple_row)
    await cursor.execute("SELECT number, checksum FROM schema_migration")
    applied: dict[int, str] = dict(await cursor.fetchall())
    _check(applied, known)
    pending = [one for one in known if one.number not in applied]
    for one in pending:
        await connection.execute(one.sql.encode())
        await connection.execute(
            "INSERT INTO schema_migration (number, name, checksum) VALUES (%s, %s, %s)",
            (one.number, one.name, one.checksum),
        )
        log.info("migration applied", number=one.number, name=one.name)
    return len(pending)


def _check(applied: dict[int, str], known: list[Migration]) -> None:
    newest = max((one.number for one in known), default=0)
    unknown = [number for number in applied if number > newest]
    if unknown:
        raise SettingsError(
            f"the manifest database has schema {max(unknown)}, this version knows up to {newest}:"
            " start a newer version, or set DB_NAME to another database"
        )
    for one in known:
        if applied.get(one.number, one.checksum) != one.checksum:
            raise SettingsError(
                f"migration {one.number:04}_{one.name} differs from the one that was applied to this database:"
                " install an unchanged version"
            )

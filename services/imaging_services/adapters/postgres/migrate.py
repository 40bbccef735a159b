"""The schema as numbered SQL files, applied once, in order, by whichever process starts first."""

import asyncio
import hashlib
import re
import time
from dataclasses import dataclass
from functools import cache
from importlib import resources

import structlog
from psycopg.errors import DeadlockDetected, LockNotAvailable, UndefinedTable
from psycopg.rows import tuple_row

from imaging_services.adapters.postgres.pool import Connection, Pool, database_errors
from imaging_services.domain.errors import DeadlineExceeded, SettingsError

log = structlog.get_logger(__name__)

_LOCK = 0x494D4147_4D494752  # "IMAGMIGR": any number that nobody else in this database uses
PATIENCE_SECONDS = 300.0
"""How long a migration waits for its turn while others work in the database."""
_LOCK_TIMEOUT = "5s"  # while a migration waits for a table, everybody who comes later waits behind it
_PAUSE_SECONDS = 1.0
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


async def migrate(pool: Pool, known: list[Migration] | None = None, *, patience: float = PATIENCE_SECONDS) -> int:
    """Bring the schema up to date; returns how many migrations were applied.

    Several processes may start at once: one works, the others wait. A processor of an older version may be at work:
    where its transactions and a migration stand in each other's way, the migrations begin anew, for ``patience``
    seconds. Raises ``SettingsError`` when the database is newer than this version, or when a file was changed after it
    had been applied, ``DeadlineExceeded`` when there was no turn.
    """
    todo = migrations() if known is None else known
    deadline = time.monotonic() + patience
    while True:
        try:
            with database_errors("migrating the manifest database"):
                return await _migrate(pool, todo)
        except _InTheWay as error:
            if time.monotonic() >= deadline:
                raise DeadlineExceeded(
                    f"{error}: other transactions held its tables for {patience:g} s: stop the event processors of the"
                    " older version, and what else works in this database"
                ) from error
            log.warning("migration waits for other transactions", migration=str(error), again_in_seconds=_PAUSE_SECONDS)
        await asyncio.sleep(_PAUSE_SECONDS)


async def is_current(pool: Pool, patience: float = 5) -> bool:
    """True when the schema is exactly the one that this version knows. Raises a RetryableError when the database does
    not say so within ``patience`` seconds, each for a connection and for its answer."""
    with database_errors("looking at the schema of the manifest database"):
        async with pool.connection(timeout=patience) as connection:
            connection.patience = patience
            try:
                cursor = await connection.execute("SELECT number, checksum FROM schema_migration")
            except UndefinedTable:
                return False
            return dict(await cursor.fetchall()) == _known_checksums()


@cache
def _known_checksums() -> dict[int, str]:
    return {one.number: one.checksum for one in migrations()}


class _InTheWay(Exception):
    """Another transaction and a migration waited for one another, or it held a table for too long."""


async def _migrate(pool: Pool, todo: list[Migration]) -> int:
    async with pool.connection() as connection, connection.transaction():
        connection.patience = None
        await connection.execute("SET LOCAL statement_timeout = 0")
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'".encode())
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
        try:
            await connection.execute(one.sql.encode())
        except (DeadlockDetected, LockNotAvailable) as error:
            raise _InTheWay(f"migration {one.number:04}_{one.name}") from error
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

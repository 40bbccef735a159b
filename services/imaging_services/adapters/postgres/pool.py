"""Connections to the manifest database: the only place that knows psycopg's connection options and exceptions."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

import orjson
import psycopg
import structlog
from psycopg import AsyncConnection, errors
from psycopg.abc import RV, PQGen
from psycopg.conninfo import make_conninfo
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from imaging_services.adapters.postgres.settings import PostgresSettings
from imaging_services.domain.errors import BackendUnavailable, DeadlineExceeded, OutOfResources

log = structlog.get_logger(__name__)


class Connection(AsyncConnection[tuple[Any, ...]]):
    """A connection that is given up when the server is silent for ``patience`` seconds; None waits for ever.

    The server's own limit, ``statement_timeout``, is of no use when it hangs, or when something in between keeps the
    connection open and passes nothing on.
    """

    patience: float | None = None

    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """As psycopg's, which every operation goes through; its time-out would leave the connection in use."""
        if self.patience is None:
            return await super().wait(gen, interval, timeout)
        watchdog = asyncio.get_running_loop().call_later(self.patience, self._shut_down)
        try:
            return await super().wait(gen, interval, timeout)
        finally:
            watchdog.cancel()

    def _shut_down(self) -> None:
        """End the TCP connection below libpq, which then reports that the server has closed it."""
        log.warning("the manifest database does not answer, its connection is given up", seconds=self.patience)
        with suppress(OSError), socket.socket(fileno=os.dup(self.pgconn.socket)) as connection:
            connection.shutdown(socket.SHUT_RDWR)


Pool = AsyncConnectionPool[Connection]

_CONNECTING = "connecting to the manifest database"
_TRUST = ": if the certificate is genuine, set DB_SSLROOTCERT to a PEM file of the authority that issued it"
_RESTED_SECONDS = 2.0
_CHECK_SECONDS = 5.0  # a rested connection that answers nothing for so long is replaced
_FULL = (errors.DiskFull, errors.OutOfMemory, errors.TooManyConnections, errors.ConfigurationLimitExceeded)


@asynccontextmanager
async def open_pool(settings: PostgresSettings) -> AsyncIterator[Pool]:
    """A pool that replaces broken connections. Raises ``BackendUnavailable`` when the database does not answer now."""

    async def configure(connection: Connection) -> None:
        set_json_loads(orjson.loads, connection)

    pool: Pool = AsyncConnectionPool(
        conninfo(settings),
        connection_class=Connection,
        kwargs={"autocommit": True},
        min_size=settings.min_size,
        max_size=max(settings.max_size, settings.min_size),
        timeout=settings.timeout_seconds,
        max_idle=300,
        reconnect_timeout=settings.timeout_seconds,
        # No `reset`: with one, each connection comes back by way of another task.
        check=_Check(2 * settings.timeout_seconds),  # the server's own limit comes first
        configure=configure,
        open=False,
    )
    await pool.open()
    try:
        try:
            with database_errors(_CONNECTING):
                async with pool.connection() as connection:
                    await connection.execute("SELECT 1")
        except DeadlineExceeded:
            await _say_why(settings)
            raise
        yield pool
    finally:
        await pool.close()


async def _say_why(settings: PostgresSettings) -> None:
    """The pool only says that it has no connection; trying once by hand raises the reason."""
    with database_errors(_CONNECTING):
        await (await AsyncConnection.connect(conninfo(settings))).close()


class _Check:
    """Looks at a connection that has rested for a while: its server may have gone. One that was used just now is not
    worth a round trip. Whoever gets it has ``patience``, whatever its last user had."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._used: WeakKeyDictionary[AsyncConnection[Any], float] = WeakKeyDictionary()

    async def __call__(self, connection: Connection) -> None:
        now = time.monotonic()
        if now - self._used.get(connection, 0) > _RESTED_SECONDS:
            connection.patience = _CHECK_SECONDS
            await AsyncConnectionPool.check_connection(connection)
        connection.patience = self._patience
        self._used[connection] = now


def conninfo(settings: PostgresSettings) -> str:
    """The libpq connection string.

    Plans are made for the values at hand: a plan that was cached while a table was small would stay a sequential scan
    as it grows.
    """
    timeout = round(settings.timeout_seconds * 1000)
    return make_conninfo(
        host=settings.host,
        port=settings.port,
        dbname=settings.name,
        user=settings.user,
        password=settings.password.get_secret_value(),
        sslmode=settings.ssl_mode,
        sslrootcert=str(settings.ssl_root_cert) if settings.ssl_root_cert else None,
        application_name=settings.application_name,
        connect_timeout=5,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=20_000,
        options=f"-c statement_timeout={timeout} -c idle_in_transaction_session_timeout={timeout * 4}"
        " -c plan_cache_mode=force_custom_plan -c jit=off -c timezone=UTC -c search_path=public",
    )


@contextmanager
def database_errors(doing: str) -> Iterator[None]:
    """Turn psycopg's exceptions into ours; ``doing`` begins the sentence of the error."""
    try:
        yield
    except _FULL as error:
        raise OutOfResources(f"{doing}: {_first_line(error)}") from error
    except (errors.QueryCanceled, errors.LockNotAvailable, PoolTimeout) as error:
        raise DeadlineExceeded(f"{doing}: {_first_line(error)}") from error
    except psycopg.Error as error:
        todo = _TRUST if "certificate verify failed" in str(error) else ""
        raise BackendUnavailable(f"{doing}: {_first_line(error)}{todo}") from error


def _first_line(error: Exception) -> str:
    # Only the first line: the DETAIL line of an error may quote a row, and with it a patient.
    return f"{type(error).__name__} {str(error).splitlines()[0] if str(error) else ''}".strip()

"""Opening a NATS connection: the only place that knows nats-py's connect options."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import jwt
import nats
import structlog
from nats.aio.client import Client
from nats.errors import ConnectionClosedError, NoRespondersError, NoServersError, StaleConnectionError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.errors import APIError, NoStreamResponseError

from imaging_services.adapters.nats.cancellation import mend_wait_for
from imaging_services.adapters.nats.settings import NatsSettings
from imaging_services.domain.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    ImagingError,
    OutOfResources,
    SettingsError,
)

log = structlog.get_logger(__name__)

# JetStream API error codes (nats-server errors.json) that mean "full".
_FULL = {10023, 10047, 10077, 10122, 10028}
_SILENCE = 30.0
_LOOK = 0.5  # seconds between looks at the connection
_T = TypeVar("_T")


@asynccontextmanager
async def connect(settings: NatsSettings, *, patience: float | None = None) -> AsyncIterator[Client]:
    """A connection that reconnects for ever and is closed at the end.

    ``patience`` is how long a server is waited for at the start, in seconds; None, for services, is as long as it
    takes, said in the log. Raises ``BackendUnavailable`` when none was there in time, ``SettingsError`` for an
    unusable token.
    """
    mend_wait_for()
    client = Client()
    try:
        await _open(client, settings, patience)
        yield client
    finally:
        if not client.is_closed:
            await client.close()


async def _open(client: Client, settings: NatsSettings, patience: float | None) -> None:
    reports = _Reports(client)
    user, password = _credentials(settings)
    try:
        with nats_errors("connecting to NATS"):
            async with asyncio.timeout(patience):
                await client.connect(
                    servers=[_url(server, settings.tls_enabled) for server in settings.url.split(",")],
                    name=settings.name,
                    user=user,
                    password=password,
                    tls=_tls(settings) if settings.tls_enabled else None,
                    inbox_prefix=f"{settings.subject_root}._INBOX".encode(),
                    max_reconnect_attempts=-1,
                    allow_reconnect=True,
                    reconnect_time_wait=0.5,  # type: ignore[arg-type]  # it sleeps for so long, whole or not
                    connect_timeout=5,
                    ping_interval=5,  # a connection that went silent is given up after three
                    error_cb=reports.error,
                    disconnected_cb=reports.disconnected,
                    reconnected_cb=reports.reconnected,
                )
    except DeadlineExceeded as error:
        why = f": {client.last_error}" if client.last_error else ""
        raise BackendUnavailable(f"no NATS server answers at {_shown(settings.url)}{why}") from error


@contextmanager
def nats_errors(doing: str) -> Iterator[None]:
    """Turn nats-py's exceptions into ours; ``doing`` begins the sentence of the error."""
    try:
        yield
    except ImagingError:
        raise
    except (NoServersError, ConnectionClosedError, StaleConnectionError, NoRespondersError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise DeadlineExceeded(f"{doing}: no answer in time") from error
        raise BackendUnavailable(f"{doing}: {type(error).__name__} {error}") from error
    except NatsTimeout as error:
        raise DeadlineExceeded(f"{doing}: no answer in time") from error
    except NoStreamResponseError as error:
        raise BackendUnavailable(f"{doing}: {error}") from error
    except APIError as error:  # "full" comes as a 503 too
        if error.err_code in _FULL:
            raise OutOfResources(f"{doing}: {error.description}") from error
        raise BackendUnavailable(f"{doing}: {error.description or error}") from error
    except nats.errors.Error as error:
        raise BackendUnavailable(f"{doing}: {type(error).__name__} {error}") from error


async def while_connected(client: Client, waiting: Awaitable[_T], reconnects: int | None = None) -> _T:
    """Wait for an answer. Raises nats-py's ``TimeoutError`` soon after its connection was lost and restored, since
    then it will not come any more. ``reconnects`` is the client's count at the time of asking, when that was before."""
    before = client.stats["reconnects"] if reconnects is None else reconnects
    task = asyncio.ensure_future(waiting)
    try:
        while not (await asyncio.wait({task}, timeout=_LOOK))[0]:
            if client.stats["reconnects"] != before:
                raise NatsTimeout
        return task.result()
    finally:
        task.cancel()


def _url(server: str, tls: bool) -> str:
    server = server.strip()
    return server if "://" in server else f"{'tls' if tls else 'nats'}://{server}"


def _credentials(settings: NatsSettings) -> tuple[str | None, str | None]:
    """User and password from the JWT: the user is what follows the last colon of ``sub``."""
    if settings.auth_token is None or not settings.auth_token.get_secret_value():
        return None, None
    token = settings.auth_token.get_secret_value().strip()
    try:
        subject = jwt.decode(token, options={"verify_signature": False}).get("sub")
    except jwt.InvalidTokenError as error:
        raise SettingsError(
            f"the NATS token is not a JWT ({error}): put a service account token into key 'token'"
        ) from error
    if not subject:
        raise SettingsError("the NATS token has no 'sub' claim: use a service account token")
    return str(subject).rsplit(":", 1)[-1], token


def _tls(settings: NatsSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(settings.tls_ca_file) if settings.tls_ca_file else None)
    if settings.tls_cert_file:
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    return context


def _shown(url: str) -> str:
    """The servers without user and password."""
    return ",".join(server.rpartition("@")[2].strip() for server in url.split(","))


class _Reports:
    """What a connection goes through, in the log; the same trouble at most every ``_SILENCE`` seconds."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._last: tuple[str, float] = "", 0.0

    async def error(self, error: Exception) -> None:
        text, now = str(error) or type(error).__name__, time.monotonic()
        if text == self._last[0] and now < self._last[1] + _SILENCE:
            return
        self._last = text, now
        log.warning("nats error", error=text, connected=self._client.is_connected)

    async def disconnected(self) -> None:
        if not self._client.is_closed:  # an orderly end is told as well
            log.warning("nats connection lost, reconnecting")

    async def reconnected(self) -> None:
        self._last = "", 0.0
        log.info("nats connection restored")


async def reach_server(client: Client) -> None:
    """Wait until the server has all that was sent so far, subscriptions above all. Raises nats-py's errors.

    Its ``flush`` sends the PING past what is not yet written; by the answer that is written, and the next comes behind.
    """
    for _ in range(2):
        await client.flush()

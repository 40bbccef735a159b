"""Opening a NATS connection: the only place that knows nats-py's connect options."""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import jwt
import nats
import structlog
from nats.aio.client import Client
from nats.errors import ConnectionClosedError, NoRespondersError, NoServersError, StaleConnectionError
from nats.errors import TimeoutError as NatsTimeout
from nats.js.errors import APIError, NoStreamResponseError, ServiceUnavailableError

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


@asynccontextmanager
async def connect(settings: NatsSettings) -> AsyncIterator[Client]:
    """A connection that reconnects for ever and is drained at the end.

    Raises ``BackendUnavailable`` when no server answers at the start, ``SettingsError`` for an unusable token.
    """
    user, password = _credentials(settings)
    with nats_errors("connecting to NATS"):
        client = await nats.connect(
            servers=[_url(server, settings.tls_enabled) for server in settings.url.split(",")],
            name=settings.name,
            user=user,
            password=password,
            tls=_tls(settings) if settings.tls_enabled else None,
            inbox_prefix=f"{settings.subject_root}._INBOX".encode(),
            max_reconnect_attempts=-1,
            allow_reconnect=True,
            reconnect_time_wait=0.5,
            connect_timeout=5,
            ping_interval=20,
            error_cb=_on_error,
            disconnected_cb=_on_disconnect,
            reconnected_cb=_on_reconnect,
        )
    try:
        yield client
    finally:
        if not client.is_closed:
            await client.close()


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
    except (NoStreamResponseError, ServiceUnavailableError) as error:
        raise BackendUnavailable(f"{doing}: {error}") from error
    except APIError as error:
        if error.err_code in _FULL:
            raise OutOfResources(f"{doing}: {error.description}") from error
        raise BackendUnavailable(f"{doing}: {error.description or error}") from error
    except nats.errors.Error as error:
        raise BackendUnavailable(f"{doing}: {type(error).__name__} {error}") from error


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


async def _on_error(error: Exception) -> None:
    log.warning("nats error", error=str(error) or type(error).__name__)


async def _on_disconnect() -> None:
    log.warning("nats connection lost, reconnecting")


async def _on_reconnect() -> None:
    log.info("nats connection restored")

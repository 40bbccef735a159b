"""One server of the local stack as a service of its own: what the trial backends of the Helm chart run."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import structlog
from pydantic import Field, SecretStr

from imaging_services.adapters.s3.administration import ensure_bucket
from imaging_services.adapters.s3.settings import BucketSettings
from imaging_services.domain.errors import BackendUnavailable, SettingsError
from imaging_services.local.nats_server import LeafNodes, NatsServer
from imaging_services.local.ports import LOOPBACK, free_ports
from imaging_services.local.postgres_server import PostgresServer
from imaging_services.local.processes import Child, Program
from imaging_services.local.s3_server import PORTS, REGION, S3Server
from imaging_services.runtime import Lifecycle, ServiceSettings

log = structlog.get_logger(__name__)


class BackendSettings(ServiceSettings):
    """Where a server listens and keeps its data. The other names are those that the services are given to reach it,
    so that one ConfigMap and one Secret serve both."""

    BACKEND_HOST: str = Field(
        default=LOOPBACK, description="address to listen on; must include the loopback address, as 0.0.0.0 does"
    )
    BACKEND_DATA_DIR: Path = Field(default=Path("imaging-backend"), description="directory that holds all data")


class NatsBackendSettings(BackendSettings):
    """NATS with JetStream, without authentication."""

    BACKEND_PORT: int = Field(default=4222, ge=1, le=65535, description="port to listen on")
    BACKEND_MONITORING_PORT: int | None = Field(
        default=None, ge=1, le=65535, description="HTTP port that tells how streams stand, as KEDA asks; default none"
    )
    BACKEND_LEAF_NODE_PORT: int | None = Field(
        default=None, ge=1, le=65535, description="port that edges dial; default none; see docs/edge.md"
    )
    BACKEND_LEAF_NODE_USER: str = Field(default="edge", pattern=r"^[A-Za-z0-9_-]+$", description="user of the edges")
    BACKEND_LEAF_NODE_PASSWORD: SecretStr | None = Field(
        default=None, min_length=8, description="its password; needed with BACKEND_LEAF_NODE_PORT"
    )
    BACKEND_JETSTREAM_DOMAIN: str = Field(
        default="hub", pattern=r"^[A-Za-z0-9_-]+$", description="own JetStream domain, where edges dial"
    )


class PostgresBackendSettings(BackendSettings):
    """PostgreSQL with one database and its owner."""

    DB_PORT: int = Field(default=5432, ge=1, le=65535, description="port to listen on")
    DB_NAME: str = Field(default="imaging", pattern=r"^[A-Za-z0-9_-]+$", description="database; created when absent")
    DB_USER: str = Field(default="imaging", pattern=r"^[A-Za-z0-9_-]+$", description="its owner")
    DB_PASS: SecretStr = Field(min_length=8, description="its password, when the data directory is created")


class S3BackendSettings(BackendSettings):
    """S3 with one bucket and one identity."""

    BUCKET_PORT: int = Field(default=8333, ge=1, le=65535, description="port to listen on")
    BUCKET_NAME: str = Field(default="imaging", min_length=3, description="bucket; created when absent")
    AWS_ACCESS_KEY_ID: str = Field(min_length=3, description="the identity's access key")
    AWS_SECRET_ACCESS_KEY: SecretStr = Field(min_length=8, description="its secret key")


@dataclass(frozen=True)
class Backend:
    """A server to run, and what must be made in it before it is of use."""

    program: Callable[[], Program]
    prepare: Callable[[], None]


def nats_backend(settings: NatsBackendSettings) -> Backend:
    """The message server."""
    server = NatsServer(
        _absolute(settings),
        settings.BACKEND_PORT,
        settings.BACKEND_HOST,
        settings.BACKEND_MONITORING_PORT,
        _leaf_nodes(settings),
    )
    return Backend(server.program, lambda: None)


def _leaf_nodes(settings: NatsBackendSettings) -> LeafNodes | None:
    port, password = settings.BACKEND_LEAF_NODE_PORT, settings.BACKEND_LEAF_NODE_PASSWORD
    if port is None:
        return None
    if password is None:
        raise SettingsError("BACKEND_LEAF_NODE_PASSWORD is not set, but BACKEND_LEAF_NODE_PORT is: edges need one")
    return LeafNodes(
        port, settings.BACKEND_LEAF_NODE_USER, password.get_secret_value(), settings.BACKEND_JETSTREAM_DOMAIN
    )


def postgres_backend(settings: PostgresBackendSettings) -> Backend:
    """The database server, with the database."""
    password = settings.DB_PASS.get_secret_value()
    server = PostgresServer(_absolute(settings), settings.DB_PORT, settings.DB_USER, password, settings.BACKEND_HOST)
    return Backend(server.program, lambda: server.create_database(settings.DB_NAME))


def s3_backend(settings: S3BackendSettings) -> Backend:
    """The object store, with the bucket."""
    secret = settings.AWS_SECRET_ACCESS_KEY
    inner = [name for name in PORTS if name != "s3"]
    ports = {"s3": settings.BUCKET_PORT, **dict(zip(inner, free_ports(len(inner)), strict=True))}
    server = S3Server(
        _absolute(settings), ports, settings.AWS_ACCESS_KEY_ID, secret.get_secret_value(), settings.BACKEND_HOST
    )
    bucket = BucketSettings(
        BUCKET_HOST=f"http://{LOOPBACK}",
        BUCKET_PORT=settings.BUCKET_PORT,
        BUCKET_REGION=REGION,
        BUCKET_NAME=settings.BUCKET_NAME,
        AWS_ACCESS_KEY_ID=settings.AWS_ACCESS_KEY_ID,
        AWS_SECRET_ACCESS_KEY=secret,
    )

    def prepare() -> None:
        server.sync_writes()
        ensure_bucket(bucket)

    return Backend(server.program, prepare)


async def serve(backend: Backend, lifecycle: Lifecycle) -> None:
    """Run it until ``lifecycle.stop``; ready when it has been prepared. What it logs goes where our log goes.

    Raises ``SettingsError`` (not installed, data of another version) or ``BackendUnavailable`` (it ended by itself).
    """
    program = replace(await asyncio.to_thread(backend.program), log_file=None)
    child = Child(program)  # from this thread: it lives as long as the child
    ended = asyncio.ensure_future(asyncio.to_thread(child.wait))
    stopping = asyncio.ensure_future(lifecycle.stop.wait())
    try:
        await asyncio.to_thread(child.wait_ready)
        await asyncio.to_thread(backend.prepare)
        log.info("ready", server=program.name)
        lifecycle.ready.set()
        await asyncio.wait([ended, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            raise BackendUnavailable(child.epitaph())
    finally:
        stopping.cancel()
        child.request_stop()
        await asyncio.shield(asyncio.to_thread(child.wait_stopped))
        await ended


def _absolute(settings: BackendSettings) -> Path:
    return settings.BACKEND_DATA_DIR.expanduser().resolve()

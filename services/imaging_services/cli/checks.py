"""What ``imaging doctor`` looks at. Every check ends within seconds and says one sentence."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.adapters.dimse.scu import echo
from imaging_services.adapters.nats.connection import connect, nats_errors
from imaging_services.adapters.nats.settings import NatsSettings
from imaging_services.adapters.postgres.migrate import migrations
from imaging_services.adapters.postgres.pool import database_errors, open_pool
from imaging_services.adapters.s3.space import open_space
from imaging_services.cli.edge_checks import edge_checks
from imaging_services.cli.target import TargetSettings
from imaging_services.domain.errors import BackendUnavailable, ImagingError, SettingsError
from imaging_services.local.configuration import INGESTION_AE, PROXY_AE, StackConfiguration
from imaging_services.local.ports import LOOPBACK
from imaging_services.local.readiness import http_get, http_json

_SECONDS = 10
_NATS_SECONDS = 4
_LITTLE_ROOM_BYTES = 2 * 1024**3


@dataclass(frozen=True)
class Finding:
    """``good`` is None for what is not configured and so was not checked."""

    what: str
    good: bool | None
    sentence: str


Check = Callable[[], Awaitable[str | None]]


async def examine(settings: TargetSettings, stack: StackConfiguration | None) -> list[Finding]:
    """Every finding, in a fixed order. Never raises for what it finds."""
    checks: list[tuple[str, Check]] = [
        ("events NATS", lambda: _nats(settings.event_nats("imaging-doctor") if settings.EVENTS_NATS_URL else None)),
        ("DIMSE relay NATS", lambda: _nats(settings.relay_nats("imaging-doctor") if settings.DIMSE_NATS_URL else None)),
        ("PostgreSQL", lambda: _postgres(settings)),
        ("storage space", lambda: _space(settings)),
        ("query API", lambda: _query(settings)),
    ]
    if settings.NATS_URL:  # most installations have no bridge
        checks.append(("event bridge NATS", lambda: _nats(settings.bridge_nats("imaging-doctor"))))
    checks += edge_checks()
    if stack is not None:
        checks += [
            ("DIMSE proxy", lambda: _echo(stack.port("dimse-proxy"), PROXY_AE)),
            ("DIMSE ingestion", lambda: _echo(stack.port("dimse-ingestion"), INGESTION_AE)),
            ("DICOMweb", lambda: _dicomweb(stack.url("dicomweb", "/dicomweb/studies?limit=1"))),
            ("disk", lambda: _disk(stack.folder.path)),
        ]
    return list(await asyncio.gather(*(_find(what, check) for what, check in checks)))


async def _find(what: str, check: Check) -> Finding:
    try:
        async with asyncio.timeout(_SECONDS):
            sentence = await check()
    except TimeoutError:
        return Finding(what, False, f"no answer within {_SECONDS} s: is it running, and is the address right?")
    except (ImagingError, OSError) as error:
        return Finding(what, False, str(error))
    return Finding(what, True, sentence) if sentence else Finding(what, None, "not configured here")


async def _nats(nats: NatsSettings | None) -> str | None:
    if nats is None:
        return None
    async with connect(nats, patience=_NATS_SECONDS) as client:
        with nats_errors(f"JetStream at {nats.url}"):
            account = await client.jetstream().account_info()
        server = client.connected_server_version
        version = f"{server.major}.{server.minor}.{server.patch}"
        # A client cannot see sync_interval; with the default of two minutes a power cut loses acknowledged images.
        return (
            f"{nats.url}, NATS {version}, JetStream with {account.streams} streams, {account.storage:,} bytes; "
            f"messages up to {client.max_payload:,} bytes"
            + ("" if client.max_payload >= 1 << 20 else " (raise max_payload)")
            + ("" if _is_local(nats.url) else "; see that a server with the only copy has sync_interval: always")
        )


def _is_local(url: str) -> bool:
    return LOOPBACK in url


async def _postgres(settings: TargetSettings) -> str | None:
    database = settings.postgres("imaging-doctor")
    if database is None:
        return None
    async with open_pool(database) as pool:
        with database_errors(f"reading the schema of {database.name}"):
            async with pool.connection() as connection:
                version = await (await connection.execute("SHOW server_version")).fetchone()
                table = await (await connection.execute("SELECT to_regclass('schema_migration')")).fetchone()
                if table is None or table[0] is None:
                    raise SettingsError(f"database {database.name} has no schema yet: start the event processor")
                row = await (await connection.execute("SELECT max(number) FROM schema_migration")).fetchone()
    newest = max(migration.number for migration in migrations())
    applied = row[0] if row else None
    if applied != newest:
        raise SettingsError(f"database {database.name} has schema {applied}, this version needs {newest}")
    return (
        f"{database.host}:{database.port}/{database.name}, PostgreSQL {version[0] if version else '?'}, schema {newest}"
    )


async def _space(settings: TargetSettings) -> str | None:
    if settings.BUCKET_CONFIG_PATH is None:
        return None
    store = open_space(settings.BUCKET_CONFIG_PATH, settings.BUCKET_SECRET_PATH)
    try:
        await store.check()
    finally:
        await store.close()
    return f"{store.bucket_name or 'container or folder'}: written, read and deleted"


async def _query(settings: TargetSettings) -> str | None:
    if not settings.QUERY_ENDPOINT:
        return None
    counts = await asyncio.to_thread(http_json, f"{settings.QUERY_ENDPOINT.rstrip('/')}/counts")
    if counts is None:
        raise BackendUnavailable(f"{settings.QUERY_ENDPOINT} does not answer: is the event processor running?")
    return (
        f"{settings.QUERY_ENDPOINT}: {counts.get('instances', 0):,} instances in {counts.get('studies', 0):,} studies"
    )


async def _echo(port: int, ae_title: str) -> str:
    status = await echo(RemoteAE(LOOPBACK, port), calling_ae_title="DOCTOR", called_ae_title=ae_title)
    if status != 0:
        raise BackendUnavailable(f"C-ECHO to {ae_title} gave status {status:04X}H")
    return f"{ae_title}@{LOOPBACK}:{port} answers C-ECHO"


async def _dicomweb(url: str) -> str:
    answer = await asyncio.to_thread(http_get, url)
    if answer is None or answer[0] not in (200, 204):
        raise BackendUnavailable(f"{url} answers {answer[0] if answer else 'nothing'}")
    return f"{url} answers QIDO-RS"


async def _disk(folder: Path) -> str:
    room = shutil.disk_usage(folder).free
    if room < _LITTLE_ROOM_BYTES:
        raise BackendUnavailable(f"{room:,} bytes free below {folder}: the S3 server stops writing at 1 GiB")
    return f"{room / 1024**3:,.0f} GiB free below {folder}"

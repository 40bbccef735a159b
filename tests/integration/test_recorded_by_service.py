"""A service that records its events itself: real PostgreSQL and NATS, with and without an event processor."""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from imaging_services.adapters.nats.connection import connect
from imaging_services.adapters.nats.ingress import serve_ingress
from imaging_services.adapters.nats.settings import EventLogSettings
from imaging_services.adapters.postgres.manifest import PostgresManifestQuery
from imaging_services.adapters.postgres.migrate import is_current, migrate
from imaging_services.adapters.postgres.pool import open_pool
from imaging_services.adapters.postgres.settings import PostgresSettings
from imaging_services.apps.dicomweb_ingestion.main import main as dicomweb
from imaging_services.apps.dicomweb_ingestion.settings import Settings
from imaging_services.apps.event_driven_ingestion import publish
from imaging_services.apps.event_driven_ingestion.main import main as processor
from imaging_services.apps.event_driven_ingestion.settings import Settings as ProcessorSettings
from imaging_services.domain.errors import Conflict, RetryableError, SettingsError
from imaging_services.domain.events.envelope import DICOM_AVAILABLE, IMAGE_STORED, CloudEvent
from imaging_services.domain.manifest.deletion import deletion_events
from imaging_services.domain.manifest.query import Scope
from imaging_services.domain.ports import EventSink
from imaging_services.runtime import load_settings
from imaging_services.wiring import direct
from imaging_services.wiring.direct import RecordingVariables, open_recording_sink
from imaging_services.wiring.events import open_event_log
from support.dicom_files import storable_files
from support.dicomweb_stack import stow
from support.events import consuming, eventually, in_background
from support.manifest_events import stored
from support.ports import a_free_port
from support.servers import Database, Nats
from support.services import running

IMAGING = str(Path(sys.executable).with_name("imaging"))
CT = next(file for file in storable_files() if file.path.name == "CT_small.dcm")


@pytest.fixture
def variables(nats_server: Nats, database: Database) -> dict[str, Any]:
    """Of a log and a database of its own."""
    root = f"t{uuid.uuid4().hex}"
    return {
        "EVENTS_NATS_URL": nats_server.url,
        "EVENTS_NATS_SUBJECT_ROOT": root,
        "EVENTS_STREAM": root,
        "DB_HOST": database.host,
        "DB_PORT": database.port,
        "DB_NAME": database.name,
        "DB_USER": database.user,
        "DB_PASS": database.password,
    }


@asynccontextmanager
async def a_sink(variables: dict[str, Any], **more: Any) -> AsyncIterator[EventSink]:
    settings = RecordingVariables(**variables, EVENTS_RECORDED_BY="service", **more)
    async with open_recording_sink(settings, "test", "test.source") as sink:
        yield sink


def login(database: Database) -> PostgresSettings:
    names = ("host", "port", "name", "user", "password")
    return PostgresSettings(**{name: getattr(database, name) for name in names})


async def migrated(database: Database) -> None:
    async with open_pool(login(database)) as pool:
        assert not await is_current(pool)
        await migrate(pool)
        assert await is_current(pool)


def rows(database: Database, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database.conninfo) as connection:
        return connection.execute(query.encode()).fetchall()


WAITING = "SELECT type, source FROM outbox ORDER BY id"


async def test_before_the_first_processor_and_while_there_is_none(
    variables: dict[str, Any], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "_LOOK_AGAIN", 0.1)
    monkeypatch.setattr(publish, "_LOOK_AGAIN", 600.0)
    edi = ProcessorSettings(**variables, HTTP_PORT=a_free_port())
    taken: list[str] = []

    async def take(event: CloudEvent) -> None:
        taken.append(event.id)

    async with a_sink(variables, EVENTS_SEND_TIMEOUT_SECONDS=60) as sink:
        first, second, third = (stored("1.2", "1.2.1", f"1.2.1.{number}") for number in range(3))
        sending = asyncio.create_task(sink.send(first))
        async with running(processor, edi):
            await sending
        await sink.send(second)
        assert len(rows(database, "SELECT FROM dicom_instance")) == 2
        assert rows(database, WAITING) == [(IMAGE_STORED, "test.local"), (DICOM_AVAILABLE, "test.source")]
        with pytest.raises(Conflict):
            await sink.send(stored("1.2", "1.2.1", "1.2.1.9", provider="south"))
        async with (
            running(processor, edi),
            open_event_log(EventLogSettings(**variables)) as log,
            consuming(log, "test", take, frozenset({IMAGE_STORED})),
        ):
            await eventually(lambda: second.id in taken)
            await sink.send(third)  # the processor is told: by itself it would not look
            await eventually(lambda: third.id in taken)
        async with open_pool(login(database)) as pool:
            locations = await PostgresManifestQuery(pool).locate(Scope("1.2"))
        for deletion in deletion_events("test", "north", locations):
            await sink.send(deletion)
        assert (len(locations), rows(database, "SELECT FROM dicom_instance")) == (3, [])


async def test_another_schema_is_the_processors(
    variables: dict[str, Any], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "_LOOK_AGAIN", 0.0)
    await migrated(database)
    handed_in: list[CloudEvent] = []

    async def handle(event: CloudEvent) -> None:
        handed_in.append(event)

    settings, started = EventLogSettings(**variables), asyncio.Event()
    subjects = settings.event_subjects()
    newer = "INSERT INTO schema_migration (number, name, checksum) VALUES (9999, 'newer', '')"
    changes = (("SELECT", 0), (newer, 1), ("DELETE FROM schema_migration WHERE number = 9999", 1))
    async with (
        a_sink(variables) as sink,
        connect(settings.event_nats("processor")) as client,
        in_background(serve_ingress(client, subjects.root, subjects.stream, handle, started=started)),
    ):
        await started.wait()
        for number, (change, others) in enumerate(changes):
            with psycopg.connect(database.conninfo) as connection:
                connection.execute(change.encode())
            await sink.send(stored("1.2", "1.2.1", f"1.2.1.{number}"))
            assert len(handed_in) == others
    assert len(rows(database, "SELECT FROM dicom_instance")) == 2


async def test_a_database_that_does_not_commit_is_a_passing_trouble(
    variables: dict[str, Any], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "_LEAST_PATIENCE", 60.0)  # the statement goes on waiting
    await migrated(database)
    event = stored("1.2", "1.2.1", "1.2.1.1")
    with psycopg.connect(database.conninfo) as blocker:
        blocker.execute("LOCK TABLE dicom_instance")
        async with a_sink(variables, EVENTS_SEND_TIMEOUT_SECONDS=1) as sink:
            async with asyncio.timeout(60):
                with pytest.raises(RetryableError):
                    await sink.send(event)
            blocker.rollback()
    assert rows(database, "SELECT sop_instance_uid FROM dicom_instance") == [("1.2.1.1",)]  # at the end, or before


@contextmanager
def service(environment: dict[str, Any], log: Path) -> Any:
    """The DICOMweb service as a process."""
    with log.open("wb") as output:
        every = {**os.environ, **{name: str(value) for name, value in environment.items()}, "HEALTH_PORT": "0"}
        process = subprocess.Popen([IMAGING, "run", "dicomweb-ingestion"], env=every, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def test_killed_between_commit_and_answer_it_makes_no_second_event(
    variables: dict[str, Any], database: Database, tmp_path: Path
) -> None:
    await migrated(database)
    for folder in ("objects", "keys"):
        (tmp_path / folder).mkdir()
    (tmp_path / "keys" / "LOCAL_STORAGE_PATH").write_text(str(tmp_path / "objects"))
    port, log = a_free_port(), tmp_path / "service.log"
    own = {"EVENTS_RECORDED_BY": "service", "DICOMWEB_ROLE": "stow", "HTTP_PORT": port}
    environment = {**variables, **own, "BUCKET_CONFIG_PATH": tmp_path / "keys"}
    url = f"http://127.0.0.1:{port}/stow-rs/"
    with service(environment, log) as process, psycopg.connect(database.conninfo) as blocker:
        await eventually(lambda: "dicomweb listens" in log.read_text())
        blocker.execute("LOCK TABLE dicom_instance")
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            storing = asyncio.create_task(stow(client, [CT], tmp_path))
            await eventually(lambda: rows(database, "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
            os.kill(process.pid, signal.SIGSTOP)
            blocker.rollback()
            await eventually(lambda: rows(database, "SELECT FROM dicom_instance"))
            process.kill()
            with pytest.raises(httpx.TransportError):
                await storing
    async with running(dicomweb, Settings(**environment)), httpx.AsyncClient(base_url=url, timeout=60) as client:
        assert (await stow(client, [CT], tmp_path)).status_code == 200
    assert [kind for kind, _ in rows(database, WAITING)] == [IMAGE_STORED, DICOM_AVAILABLE]


@pytest.mark.parametrize("missing", ["DB_HOST", "EVENTS_NATS_URL"])
def test_it_needs_the_database_and_the_log(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good = {"DB_HOST": "h", "DB_NAME": "n", "DB_USER": "u", "DB_PASS": "p", "EVENTS_NATS_URL": "nats://h"}
    for name, value in (good | {"EVENTS_RECORDED_BY": "service", "K_SINK": "http://broker", missing: ""}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="EVENTS_RECORDED_BY=service needs DB_HOST and EVENTS_NATS_URL"):
        load_settings(Settings)

"""Told to stop, every HTTP service finishes the requests under way and takes no more: nothing is lost in a rollout."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from imaging_services.adapters.http.server import serve
from imaging_services.adapters.s3.space import open_space
from imaging_services.apps.dicomweb_ingestion.main import main as dicomweb
from imaging_services.apps.dicomweb_ingestion.settings import Settings as Dicomweb
from imaging_services.apps.event_bridge.main import main as event_bridge
from imaging_services.apps.event_bridge.settings import Settings as EventBridge
from imaging_services.apps.event_driven_ingestion.main import main as processor
from imaging_services.apps.event_driven_ingestion.settings import Settings as Processor
from imaging_services.apps.instance_binding.main import main as instance_binding
from imaging_services.apps.instance_binding.settings import Settings as InstanceBinding
from imaging_services.apps.study_binding.main import main as study_binding
from imaging_services.apps.study_binding.settings import Settings as StudyBinding
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.events.http_binding import encode_http
from support.dicom_files import DicomFile, storable_files
from support.dicomweb import Recorded, keep, reading_app
from support.draining import an_idle_connection, connected, until_refused, upload_begun, upload_ended
from support.events import an_event
from support.ports import a_free_port
from support.revisions import revision, revision_event
from support.servers import Database, Nats
from support.services import running
from support.webhook import Webhook

CT = next(file for file in storable_files() if file.path.name == "CT_small.dcm")
IMAGING = str(Path(sys.executable).with_name("imaging"))
BOUNDARY = "edge"
STOW = {"Content_Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'}


async def assert_drained(main: Any, settings: Any, path: str, body: bytes, **headers: object) -> int:
    """Stop the service in the middle of a POST; the status that the POST gets all the same."""
    port = settings.HTTP_PORT
    async with running(main, settings, seconds=60) as lifecycle:
        idle = await an_idle_connection(port)
        busy = await upload_begun(port, path, body, **headers)
        lifecycle.stop.set()
        await idle.closed()
        await until_refused(port)
        answer = await upload_ended(busy, body)
    return answer.status


def listening(**more: Any) -> dict[str, Any]:
    return {"HTTP_HOST": "0.0.0.0", "HTTP_PORT": a_free_port(), "DRAIN_SECONDS": 60, **more}


def posted(event: CloudEvent) -> tuple[bytes, dict[str, str]]:
    headers, body = encode_http(event)
    return body, {name.replace("-", "_"): value for name, value in headers.items()}


def stow_body(folder: Path, file: DicomFile = CT) -> bytes:
    content = file.write_part10(folder / "one.dcm").read_bytes()
    return (
        f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + content + f"\r\n--{BOUNDARY}--".encode()
    )


def a_folder_as_space(folder: Path) -> Path:
    (folder / "objects").mkdir()
    (folder / "keys").mkdir()
    (folder / "keys" / "LOCAL_STORAGE_PATH").write_text(str(folder / "objects"))
    return folder / "keys"


async def test_stow(tmp_path: Path) -> None:
    with Webhook() as sink:
        settings = Dicomweb(
            **listening(K_SINK=sink.url, DICOMWEB_ROLE="stow", BUCKET_CONFIG_PATH=a_folder_as_space(tmp_path))
        )
        status = await assert_drained(dicomweb, settings, "/stow-rs/studies", stow_body(tmp_path), **STOW)
        assert status == 200
        assert len(list((tmp_path / "objects").iterdir())) == 1
        assert len(sink.events) == 1


async def test_event_processor(database: Database) -> None:
    with Webhook() as sink:
        variables = {f"DB_{name.upper()}": getattr(database, name) for name in ("host", "port", "name", "user")}
        settings = Processor(**listening(**variables, DB_PASS=database.password, K_SINK=sink.url))
        body = json.dumps({"study_instance_uid": "1.2.3"}).encode()
        assert await assert_drained(processor, settings, "/query/locate", body, Content_Type="application/json") == 200


@pytest.mark.parametrize("kind", ["instance", "study"])
async def test_bindings(kind: str) -> None:
    with Webhook() as hook:
        event = an_event() if kind == "instance" else revision_event(revision(0))
        variables = listening(WEBHOOK_ENDPOINT=hook.url)
        service = (
            (instance_binding, InstanceBinding(**variables))
            if kind == "instance"
            else (study_binding, StudyBinding(**variables))
        )
        body, headers = posted(event)
        assert await assert_drained(*service, "/", body, **headers) == 204
        assert [one["id"] for one in hook.events] == [event.id]


async def test_event_bridge(nats_server: Nats) -> None:
    with Webhook() as sink:
        settings = EventBridge(
            **listening(
                BRIDGE_ROLE="edge",
                NATS_URL=nats_server.url,
                NATS_SUBJECT_ROOT=f"t{secrets.token_hex(6)}",
                EDGE_MAILBOX_ID="north",
                K_SINK=sink.url,
            )
        )
        body, headers = posted(an_event())
        assert await assert_drained(event_bridge, settings, "/", body, **headers) == 204


async def test_a_download_under_way_is_finished(tmp_path: Path) -> None:
    """The client has not read most of it when the service is told to stop, and the sockets cannot hold it."""
    large = DicomFile(
        tmp_path,
        *("1.2.1", "1.2.2", "1.2.3", "1.2.4", "1.2.840.10008.1.2.1"),
        CT.data_set + os.urandom(40 * 1024 * 1024),
    )
    store_path = a_folder_as_space(tmp_path)
    recorded = Recorded()
    location = await keep(open_space(store_path), recorded, large)
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    app = reading_app(recorded, open_space(store_path))
    server = asyncio.create_task(serve(app, "0.0.0.0", 0, stop, drain_seconds=60, listening=port.set_result))
    connection = await connected(await port)
    await connection.ask("GET", f"/wado-rs/{large.resource}", Accept="application/dicom;transfer-syntax=*")
    status, head = await connection.head()
    assert (status, f"content-length: {location.size}" in head) == (200, True)
    stop.set()
    await until_refused(port.result())
    async with asyncio.timeout(60):
        body = await connection.reader.readexactly(location.size or 0)
    assert body.endswith(large.data_set)
    await connection.closed()
    await server


async def test_a_process_is_not_ready_while_it_drains(tmp_path: Path) -> None:
    with Webhook() as sink:
        port, health = a_free_port(), a_free_port()
        variables = {
            "DICOMWEB_ROLE": "stow",
            "BUCKET_CONFIG_PATH": str(a_folder_as_space(tmp_path)),
            "K_SINK": sink.url,
            "HTTP_HOST": "0.0.0.0",
            "HTTP_PORT": str(port),
            "HEALTH_HOST": "0.0.0.0",
            "HEALTH_PORT": str(health),
            "DRAIN_SECONDS": "60",
        }
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [IMAGING, "run", "dicomweb-ingestion"], env={**os.environ, **variables}, stderr=log
            )
        try:
            await _stopped_under_load(process, port, health, stow_body(tmp_path))
        finally:
            process.kill()
            process.wait()
        assert len(sink.events) == 1


async def _stopped_under_load(process: subprocess.Popen[bytes], port: int, health: int, body: bytes) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.2:{health}", timeout=30) as client:
        await _until(client, "/readyz", 200)
        busy = await upload_begun(port, "/stow-rs/studies", body, **STOW)
        process.send_signal(signal.SIGTERM)
        await until_refused(port)
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200
        assert "imaging_http_requests_under_way 1.0" in (await client.get("/metrics")).text
        answer = await upload_ended(busy, body)
        assert answer.status == 200
    assert await asyncio.to_thread(process.wait, 60) == 0


async def _until(client: httpx.AsyncClient, path: str, status: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                if (await client.get(path)).status_code == status:
                    return
            except httpx.ConnectError:
                pass
            await asyncio.sleep(0.05)

"""The instance binding as a service: settings from the environment, the real event log, HTTP ingress."""

import asyncio
import secrets
import warnings
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from imaging_services.apps.instance_binding.main import main
from imaging_services.apps.instance_binding.settings import Settings
from imaging_services.domain.events.http_binding import encode_http
from imaging_services.local.ports import free_ports
from imaging_services.wiring.events import open_event_log
from support.dicom_files import storable_files
from support.events import eventually, letters, letters_arrive
from support.orthanc import Orthanc
from support.servers import Nats
from support.services import running
from support.storescp import storescp
from support.wado_source import WadoSource
from support.webhook import Reply, Webhook

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    FILES = [file for file in storable_files() if file.path.name in ("CT_small.dcm", "MR_small.dcm", "SC_rgb_rle.dcm")]


def settings(monkeypatch: pytest.MonkeyPatch, **environment: object) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    return Settings()


def from_nats(server: Nats, **more: object) -> dict[str, object]:
    return {
        "EVENTS_NATS_URL": server.url,
        "EVENTS_STREAM": secrets.token_hex(6),
        "EVENTS_RETRY_DELAYS_SECONDS": "0.1",
        **more,
    }


async def test_stow_to_orthanc(nats_server: Nats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Orthanc(tmp_path / "orthanc") as orthanc, WadoSource(*FILES) as source:
        environment = from_nats(nats_server, STOW_ENDPOINT=f"{orthanc.dicomweb}/studies")
        chosen = settings(monkeypatch, **environment)
        source.script = [Reply(503)]
        async with open_event_log(chosen) as log, running(main, chosen):
            await log.append([source.event(file) for file in FILES])
            await eventually(lambda: len(orthanc.get("/instances")) == len(FILES))
            assert await letters(log) == []


async def test_c_store_to_dcmtk(nats_server: Nats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received = tmp_path / "received"
    with storescp(received, "--accept-all") as port, WadoSource(*FILES) as source:
        environment = from_nats(nats_server, DIMSE_TARGET_HOST="127.0.0.1", DIMSE_TARGET_PORT=port)
        chosen = settings(monkeypatch, BINDING_NAME="pacs", **environment)
        async with open_event_log(chosen) as log, running(main, chosen):
            await log.append([source.event(file) for file in FILES])
            await eventually(lambda: len(list(received.iterdir())) == len(FILES))
            missing = replace(FILES[0], sop_instance_uid="1.2.3")
            await log.append([source.event(missing)])
            (letter,) = await letters_arrive(log, 1, "pacs")
            assert "not there" in letter.reason


async def test_two_bindings_each_get_every_event(nats_server: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    with Webhook() as first, Webhook() as second, WadoSource() as source:
        environment = from_nats(nats_server)
        chosen = [
            settings(monkeypatch, **environment, WEBHOOK_ENDPOINT=first.url),
            settings(monkeypatch, **environment, WEBHOOK_ENDPOINT=second.url),
        ]
        async with open_event_log(chosen[0]) as log, running(main, chosen[0]), running(main, chosen[1]):
            await log.append([source.event(file) for file in FILES])
            await eventually(lambda: len(first.requests) == len(second.requests) == len(FILES))


async def test_stopping_finishes_what_is_under_way(nats_server: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    with Webhook() as hook, WadoSource() as source:
        chosen = settings(monkeypatch, **from_nats(nats_server, WEBHOOK_ENDPOINT=hook.url))
        hook.script = [Reply(204, delay=1)]
        async with open_event_log(chosen) as log:
            async with running(main, chosen):
                await log.append([source.event(FILES[0])])
                await eventually(lambda: hook.requests)
            async with running(main, chosen):
                await asyncio.sleep(0.5)
        assert len(hook.requests) == 1


async def test_http_ingress(monkeypatch: pytest.MonkeyPatch) -> None:
    with WadoSource(*FILES) as source, Webhook() as archive:
        (port,) = free_ports(1)
        chosen = settings(monkeypatch, STOW_ENDPOINT=archive.url, HTTP_PORT=port, SELECTOR="north")
        async with running(main, chosen), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def post(message: tuple[dict[str, str], bytes]) -> int:
                headers, body = message
                return (await client.post("/", headers=headers, content=body)).status_code

            event = source.event(FILES[0])
            assert await post(encode_http(event)) == 204
            assert await post(encode_http(source.event(FILES[0], provider="south"))) == 204
            assert len(archive.requests) == 1
            archive.script = [Reply(503), Reply(409, b"no"), Reply(404), Reply(401)]
            assert await post(encode_http(event)) == 503
            assert await post(encode_http(event)) == 422
            assert await post(encode_http(event)) == 422
            assert await post(encode_http(event)) == 422
            assert await post(encode_http(source.event_at(f"{source.url}/none"))) == 422
            assert await post((encode_http(event)[0], b"")) == 400
            assert await post(({}, b"{}")) == 400
            source.script = [Reply(500)]
            assert await post(encode_http(event)) == 503

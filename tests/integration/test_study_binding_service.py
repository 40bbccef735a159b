"""The study binding as a service: settings from the environment, the real event log, HTTP ingress."""

import asyncio
import secrets

import httpx
import pytest

from imaging_services.apps.study_binding.imaging_study import revision_of
from imaging_services.apps.study_binding.main import main
from imaging_services.apps.study_binding.settings import Settings
from imaging_services.domain.events.http_binding import encode_http, encode_http_structured
from imaging_services.local.ports import free_ports
from imaging_services.wiring.events import open_event_log
from support.events import eventually
from support.fhir_server import FhirServer
from support.revisions import revision, revision_event, series
from support.servers import Nats
from support.services import running
from support.webhook import Reply, Webhook


def settings(monkeypatch: pytest.MonkeyPatch, **environment: object) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    return Settings()


async def test_fhir_from_jetstream(nats_server: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    with FhirServer() as fhir:
        chosen = settings(
            monkeypatch,
            EVENTS_NATS_URL=nats_server.url,
            EVENTS_STREAM=secrets.token_hex(6),
            EVENTS_RETRY_DELAYS_SECONDS="0.1",
            FHIR_ENDPOINT=fhir.url,
            IMAGING_STUDY_ENDPOINT="https://viewer/dicom-web",
        )
        fhir.fail_writes = [Reply(503), Reply(503)]
        async with open_event_log(chosen) as log, running(main, chosen):
            await log.append([revision_event(revision(number)) for number in range(3)])
            await eventually(lambda: fhir.studies and revision_of(fhir.only()) == 2)
            assert [letter async for letter in log.dead_letters()] == []
        assert fhir.only()["contained"][0]["address"].startswith("https://viewer/dicom-web/studies/1.2")


async def test_what_was_not_delivered_waits_for_the_next_start(
    nats_server: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Webhook() as hook:
        chosen = settings(
            monkeypatch,
            EVENTS_NATS_URL=nats_server.url,
            EVENTS_STREAM=secrets.token_hex(6),
            EVENTS_RETRY_DELAYS_SECONDS="0.1",
            WEBHOOK_ENDPOINT=hook.url,
            WEBHOOK_AUTH_TOKEN="Bearer hook",
        )
        event = revision_event(revision(1))
        async with open_event_log(chosen) as log:
            hook.script = [Reply(503)] * 1000
            async with running(main, chosen):
                await log.append([event])
                await eventually(lambda: len(hook.requests) > 1)
            hook.script = []
            before = len(hook.requests)
            async with running(main, chosen):
                await eventually(lambda: len(hook.requests) > before)
        await asyncio.sleep(0.3)
        assert len(hook.requests) == before + 1
        assert hook.events[-1]["id"] == event.id
        assert hook.requests[-1].headers["authorization"] == "Bearer hook"
        assert hook.requests[-1].headers["content-type"] == "application/json"


async def test_redriven_dead_letters_are_delivered(nats_server: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    with FhirServer() as fhir:
        chosen = settings(
            monkeypatch,
            EVENTS_NATS_URL=nats_server.url,
            EVENTS_STREAM=secrets.token_hex(6),
            BINDING_NAME="fhir-north",
            FHIR_ENDPOINT=fhir.url,
        )
        fhir.fail_writes = [Reply(422)]
        async with open_event_log(chosen) as log, running(main, chosen):
            await log.append([revision_event(revision())])
            async with asyncio.timeout(60):
                while not [letter async for letter in log.dead_letters("fhir-north")]:
                    await asyncio.sleep(0.05)
            assert await log.redrive("fhir-north") == 1
            await eventually(lambda: fhir.studies)


async def test_http_ingress(monkeypatch: pytest.MonkeyPatch) -> None:
    with FhirServer() as fhir:
        (port,) = free_ports(1)
        chosen = settings(monkeypatch, FHIR_ENDPOINT=fhir.url, HTTP_PORT=port, SELECTOR="north")
        async with running(main, chosen), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

            async def post(message: tuple[dict[str, str], bytes]) -> int:
                headers, body = message
                return (await client.post("/", headers=headers, content=body)).status_code

            assert await post(encode_http(revision_event(revision()))) == 204
            assert revision_of(fhir.only()) == 0
            assert await post(encode_http_structured(revision_event(revision(1)))) == 204
            assert revision_of(fhir.only()) == 1
            assert await post(encode_http(revision_event(revision(2, series(provider="south"))))) == 204
            assert revision_of(fhir.only()) == 1
            assert await post(({"content-type": "application/json"}, b"{}")) == 400
            headers, _ = encode_http(revision_event(revision(3)))
            assert await post((headers, b"{broken")) == 400
            assert await post((headers | {"ce-type": "SomethingElse"}, b"{}")) == 400
            fhir.fail_writes = [Reply(503), Reply(404), Reply(400)]
            assert await post(encode_http(revision_event(revision(4)))) == 503
            assert await post(encode_http(revision_event(revision(4)))) == 422
            assert await post(encode_http(revision_event(revision(4)))) == 422
            assert await post(encode_http(revision_event(revision(4)))) == 204


async def test_a_refusing_webhook_is_final_for_knative(monkeypatch: pytest.MonkeyPatch) -> None:
    with Webhook() as hook:
        (port,) = free_ports(1)
        chosen = settings(monkeypatch, WEBHOOK_ENDPOINT=hook.url, HTTP_PORT=port)
        hook.script = [Reply(404), Reply(409)]
        headers, body = encode_http(revision_event(revision()))
        async with running(main, chosen), httpx.AsyncClient() as client:
            for expected in (422, 422, 204):
                answer = await client.post(f"http://127.0.0.1:{port}/", headers=headers, content=body)
                assert answer.status_code == expected

"""TLS with an authority of one's own: the right one is trusted; with another nothing is sent, and we say why."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from imaging_services.adapters.http.client import HttpOptions, HttpTarget
from imaging_services.adapters.nats.connection import connect
from imaging_services.adapters.nats.settings import EventSettings, NatsSettings
from imaging_services.adapters.postgres.pool import open_pool
from imaging_services.adapters.postgres.settings import DatabaseVariables
from imaging_services.adapters.s3.administration import ensure_bucket
from imaging_services.adapters.s3.settings import BucketSettings
from imaging_services.adapters.s3.space import space_of
from imaging_services.apps.instance_binding.main import main as instance_binding
from imaging_services.apps.instance_binding.settings import Settings as InstanceBinding
from imaging_services.apps.study_binding.main import main as study_binding
from imaging_services.apps.study_binding.settings import Settings as StudyBinding
from imaging_services.domain.errors import BackendUnavailable, SettingsError
from imaging_services.domain.events.envelope import STUDY_REVISION
from imaging_services.domain.manifest.query import Scope
from imaging_services.wiring.archive import open_manifest
from imaging_services.wiring.events import open_event_log, open_sink
from support.azurite import running_azurite
from support.dicom_files import storable_files
from support.events import an_event, letters_arrive
from support.fhir_server import FhirServer
from support.nats_process import NatsProcess
from support.revisions import revision, revision_event
from support.servers import S3, Database, Nats
from support.services import running
from support.tls import Authority, Front, an_authority, tls_front
from support.wado_source import WadoSource
from support.webhook import Receiver, Reply, Webhook

SAID = "certificate is refused .*set {} to a PEM file of the authority"


@pytest.fixture
def right(tmp_path: Path) -> Authority:
    """The authority that the servers' certificates come from."""
    return an_authority(tmp_path, "right")


@pytest.fixture
def wrong(tmp_path: Path) -> Authority:
    """Another one."""
    return an_authority(tmp_path, "wrong")


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def s3_settings(server: S3, bucket: str, front: Front, **keys: Any) -> BucketSettings:
    return BucketSettings(
        BUCKET_HOST="https://127.0.0.1",
        BUCKET_PORT=front.port,
        BUCKET_NAME=bucket,
        AWS_ACCESS_KEY_ID=server.access_key_id,
        AWS_SECRET_ACCESS_KEY=server.secret_access_key,
        **keys,
    )


async def test_s3(
    s3_server: S3, bucket: str, right: Authority, wrong: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with tls_front(right, port_of(s3_server.endpoint)) as front:
        refusing = s3_settings(s3_server, bucket, front, BUCKET_CA_FILE=wrong.ca_file)
        with pytest.raises(BackendUnavailable, match=SAID.format("BUCKET_CA_FILE")):
            await space_of(refusing).put("a" * 64, b"content")
        with pytest.raises(BackendUnavailable, match="certificate"):
            await asyncio.to_thread(ensure_bucket, refusing)
        assert (front.connections > 0, front.received) == (True, 0)
        trusting = s3_settings(s3_server, bucket, front, BUCKET_CA_FILE=right.ca_file)
        await space_of(trusting).check()
        assert await asyncio.to_thread(ensure_bucket, trusting) is False
        assert front.received > 0
        monkeypatch.setenv("SSL_CERT_FILE", str(right.ca_file))
        by_variable = s3_settings(s3_server, bucket, front)
        await space_of(by_variable).check()
        assert await asyncio.to_thread(ensure_bucket, by_variable) is False


async def test_azure_blob(right: Authority, wrong: Authority, tmp_path: Path) -> None:
    folder = tmp_path / "azurite"
    folder.mkdir()
    with running_azurite(folder, certificate=right.certificate, key=right.key, ca_file=right.ca_file) as azurite:
        keys = azurite.keys(await asyncio.to_thread(azurite.create_container))
        await space_of(BucketSettings(**keys)).check()
        with pytest.raises(BackendUnavailable, match=SAID.format("BUCKET_CA_FILE")):
            await space_of(BucketSettings(**{**keys, "BUCKET_CA_FILE": str(wrong.ca_file)})).check()


def environment(nats: Nats, front: Front, authority: Authority, **more: Any) -> dict[str, Any]:
    return {
        "EVENTS_NATS_URL": nats.url,
        "EVENTS_STREAM": secrets.token_hex(6),
        "EVENTS_MAX_TRIES": 1,
        "TARGET_CA_FILE": authority.ca_file,
        **{name: value.replace("https://", f"https://127.0.0.1:{front.port}") for name, value in more.items()},
    }


class Stow(Receiver):
    """A STOW-RS service as far as one instance needs it."""

    path = "/studies"

    def answer(self, request: Any) -> Reply:
        return Reply(200, b"{}", {"Content-Type": "application/dicom+json"})


@pytest.mark.parametrize("trusted", [True, False])
async def test_the_instance_bindings_target(
    nats_server: Nats, right: Authority, wrong: Authority, tmp_path: Path, trusted: bool
) -> None:
    file = next(file for file in storable_files() if file.path.name == "CT_small.dcm")
    with Stow() as stow, WadoSource(file) as source:
        async with tls_front(right, port_of(stow.url)) as front:
            authority = right if trusted else wrong
            chosen = InstanceBinding(**environment(nats_server, front, authority, STOW_ENDPOINT="https:///studies"))
            async with open_event_log(chosen) as log, running(instance_binding, chosen):
                await log.append([source.event(file)])
                if trusted:
                    await asyncio.to_thread(stow.wait_for, 1)
                    return
                (letter,) = await letters_arrive(log, 1)
            assert_refused(letter.reason, front)
            assert stow.requests == []


@pytest.mark.parametrize("target", ["fhir", "webhook"])
@pytest.mark.parametrize("trusted", [True, False])
async def test_the_study_bindings_target(
    nats_server: Nats, right: Authority, wrong: Authority, target: str, trusted: bool
) -> None:
    with FhirServer() if target == "fhir" else Webhook() as server:
        async with tls_front(right, port_of(server.url)) as front:
            where = {
                "fhir": {"FHIR_ENDPOINT": "https:///fhir/ImagingStudy", "IMAGING_STUDY_ENDPOINT": "http://wado"},
                "webhook": {"WEBHOOK_ENDPOINT": "https:///"},
            }
            chosen = StudyBinding(**environment(nats_server, front, right if trusted else wrong, **where[target]))
            async with open_event_log(chosen) as log, running(study_binding, chosen):
                event = revision_event(revision(0))
                assert event.type == STUDY_REVISION
                await log.append([event])
                if trusted:
                    await asyncio.to_thread(server.wait_for, 1)
                    return
                (letter,) = await letters_arrive(log, 1)
            assert_refused(letter.reason, front)
            assert server.requests == []


def assert_refused(reason: str, front: Front) -> None:
    assert "certificate is refused" in reason
    assert "set TARGET_CA_FILE to a PEM file" in reason
    assert (front.connections > 0, front.received) == (True, 0)


@pytest.fixture
async def https(right: Authority) -> AsyncIterator[tuple[Webhook, Front]]:
    """A server behind TLS."""
    with Webhook() as server:
        async with tls_front(right, port_of(server.url)) as front:
            yield server, front


async def test_event_sink_and_query_api_trust_what_the_process_trusts(
    https: tuple[Webhook, Front], right: Authority, wrong: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, front = https
    settings = EventSettings(K_SINK=f"https://127.0.0.1:{front.port}/", EVENTS_SEND_TIMEOUT_SECONDS=1)
    scope = Scope(study_instance_uid="1.2.3")
    for authority in (None, wrong):
        if authority:
            monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        async with open_sink(settings) as sink, open_manifest(None, f"{settings.K_SINK}query") as manifest:
            with pytest.raises(BackendUnavailable, match=SAID.format("SSL_CERT_FILE")):
                await sink.send(an_event())
            with pytest.raises(BackendUnavailable, match=SAID.format("SSL_CERT_FILE")):
                await manifest.locate(scope)
    assert (server.requests, front.received) == ([], 0)
    monkeypatch.setenv("SSL_CERT_FILE", str(right.ca_file))
    server.script = [Reply(204), Reply(200, b"[]", {"Content-Type": "application/json"})]
    async with open_sink(settings) as sink, open_manifest(None, f"{settings.K_SINK}query") as manifest:
        await sink.send(an_event())
        assert await manifest.locate(scope) == []
    assert [request.path for request in server.requests] == ["/", "/query/locate"]


async def test_a_named_authority_is_trusted_besides_the_others(
    https: tuple[Webhook, Front], right: Authority, wrong: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, front = https
    monkeypatch.setenv("SSL_CERT_FILE", str(right.ca_file))
    async with HttpTarget(f"https://127.0.0.1:{front.port}", HttpOptions(ca_file=wrong.ca_file)) as target:
        await target.request("POST", "/")
    assert len(server.requests) == 1


async def test_a_certificate_for_another_host_is_refused(https: tuple[Webhook, Front], right: Authority) -> None:
    server, front = https
    async with HttpTarget(f"https://localhost:{front.port}", HttpOptions(ca_file=right.ca_file)) as target:
        with pytest.raises(BackendUnavailable, match=r"certificate is refused .*localhost"):
            await target.request("POST", "/")
    assert (server.requests, front.received) == ([], 0)


def test_a_file_that_holds_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    for name in ("ca.pem", "absent.pem"):
        options = HttpOptions(ca_file=tmp_path / name, ca_setting="TARGET_CA_FILE")
        with pytest.raises(SettingsError, match=f"TARGET_CA_FILE .*{name} cannot be used"):
            HttpTarget("https://127.0.0.1", options)


async def test_nats(tmp_path: Path, right: Authority, wrong: Authority) -> None:
    tls = f'tls {{ cert_file: "{right.certificate}", key_file: "{right.key}" }}\n'
    with NatsProcess(tmp_path, more=tls) as server:
        address = f"127.0.0.1:{server.port}"
        trusting = NatsSettings(url=address, tls_enabled=True, tls_ca_file=right.ca_file)
        async with connect(trusting, patience=30) as client:
            reply = await client.jetstream().account_info()
            assert reply.streams == 0
        refusing = trusting.model_copy(update={"tls_ca_file": wrong.ca_file})
        with pytest.raises(BackendUnavailable, match="certificate verify failed"):
            async with connect(refusing, patience=3):
                raise AssertionError("connected")


def database_settings(database: Database, port: int, **variables: Any) -> Any:
    settings = DatabaseVariables(
        DB_HOST=database.host,
        DB_PORT=port,
        DB_NAME=database.name,
        DB_USER=database.user,
        DB_PASS=database.password,
        **variables,
    ).postgres()
    assert settings is not None
    return settings.model_copy(update={"timeout_seconds": 3})


@pytest.mark.parametrize("mode", [None, "verify-ca", "verify-full"])
async def test_postgresql(database: Database, right: Authority, wrong: Authority, mode: str | None) -> None:
    async with tls_front(right, database.port, postgres=True) as front:
        refusing = database_settings(database, front.port, DB_SSLMODE=mode, DB_SSLROOTCERT=wrong.ca_file)
        with pytest.raises(BackendUnavailable, match=r"certificate verify failed.*set DB_SSLROOTCERT to a PEM file"):
            async with open_pool(refusing):
                raise AssertionError("connected")
        assert (front.connections > 0, front.received) == (True, 0)
        trusting = database_settings(database, front.port, DB_SSLMODE=mode, DB_SSLROOTCERT=right.ca_file)
        trusting = trusting.model_copy(update={"timeout_seconds": 30})
        async with open_pool(trusting) as pool, pool.connection() as connection:
            cursor = await connection.execute("SELECT 1")
            assert await cursor.fetchall() == [(1,)]
        assert front.received > 0


async def test_a_database_without_tls_is_refused_when_tls_is_required(database: Database) -> None:
    with pytest.raises(BackendUnavailable, match="server does not support SSL"):
        async with open_pool(database_settings(database, database.port, DB_SSLMODE="require")):
            raise AssertionError("connected")


@pytest.mark.parametrize(
    ("mode", "file", "complaint"),
    [(None, "absent.pem", "DB_SSLROOTCERT: .* is not a file"), ("disable", "ca.pem", "DB_SSLMODE is disable")],
)
def test_database_settings_that_cannot_be_meant(tmp_path: Path, mode: Any, file: str, complaint: str) -> None:
    (tmp_path / "ca.pem").touch()
    with pytest.raises(ValueError, match=complaint):
        DatabaseVariables(DB_SSLMODE=mode, DB_SSLROOTCERT=tmp_path / file)

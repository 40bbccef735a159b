"""The hospital's side without Kubernetes: compose.yaml and its environment file."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from imaging_services.apps.dimse_proxy.settings import Settings
from imaging_services.cli.components import COMPONENTS
from imaging_services.cli.env_file import read_env_file
from imaging_services.local.ports import free_ports
from imaging_services.local.readiness import http_status
from support.webhook import wait_until

FOLDER = Path(__file__).parents[2] / "examples" / "on-premises"
IMAGING = str(Path(sys.executable).with_name("imaging"))


@pytest.fixture(scope="module")
def service() -> Any:
    """The only service of the compose file."""
    (only,) = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"].values()
    return only


def test_it_runs_a_component_of_the_image(service: Any) -> None:
    assert service["command"] == ["run", "dimse-proxy", "--edge"]
    assert service["command"][1] in COMPONENTS
    version = yaml.safe_load((FOLDER.parents[1] / "charts" / "imaging-ingestion" / "Chart.yaml").read_text())
    assert service["image"] == f"${{IMAGING_IMAGE:-imaging-ingestion:{version['appVersion']}}}"
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])


def test_variables_are_the_proxys_and_ports_agree(service: Any) -> None:
    file = FOLDER / service["env_file"]
    given = read_env_file(file)
    lines = [line for line in file.read_text().splitlines() if line.startswith("#") and "=" in line]
    offered = {line[1:].partition("=")[0] for line in lines if line[1:].partition("=")[0].isupper()}
    known = set(Settings.model_fields)
    for field in Settings.model_fields.values():
        known |= set(getattr(field.validation_alias, "choices", ()))
    assert set(given) | {name for name in offered if " " not in name} <= known
    published = {port.split(":")[-1] for port in service["ports"]}
    assert published == {given["DIMSE_PORT"], given["HEALTH_PORT"]}
    assert f":{given['HEALTH_PORT']}/readyz" in service["healthcheck"]["test"][-1]


def test_the_spool_is_a_volume_that_the_container_may_write(service: Any) -> None:
    (volume,) = service["volumes"]
    assert volume.endswith(f":{Settings.model_fields['EDGE_SPOOL_DIR'].default}")


def test_the_edge_starts_from_its_file_while_the_hub_is_away(tmp_path: Path) -> None:
    dimse, health, nats, monitoring = map(str, free_ports(4))
    environment = {
        "PATH": os.environ["PATH"],
        "DIMSE_HOST": "127.0.0.1",
        "DIMSE_PORT": dimse,
        "HEALTH_PORT": health,
        "EDGE_HUB_URL": "tls://127.0.0.1:1",
        "EDGE_NATS_PORT": nats,
        "EDGE_MONITORING_PORT": monitoring,
        "EDGE_SPOOL_DIR": str(tmp_path / "spool"),
        "EDGE_DISK_RESERVE_BYTES": "0",
    }
    log = tmp_path / "log"
    command = [IMAGING, "run", "dimse-proxy", "--edge", "--env-file", str(FOLDER / "dimse-proxy.env")]
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        wait_until(lambda: process.poll() is not None or http_status(int(health), "/readyz") == 200, 60)
        assert process.poll() is None, log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()

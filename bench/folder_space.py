"""A second storage space beside the stack's S3: a local folder, as Orthanc has, with its own two services."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from imaging_services.local.ports import free_ports
from support.stack import Stack

IMAGING = str(Path(sys.executable).with_name("imaging"))


@dataclass(frozen=True)
class FolderSpace:
    """Where the services of the folder space listen, and the processes that work for it."""

    dimse: dict[str, object]
    dicomweb: str
    pids: list[int]
    ingestion_pid: int


@contextmanager
def folder_space(stack: Stack, folder: Path, workers: int = 1) -> Iterator[FolderSpace]:
    """Run `imaging run dimse-ingestion` and `dicomweb-ingestion` on a folder, with the stack's event processor; of the
    former so many processes on one port."""
    config = folder / "config"
    config.mkdir(parents=True)
    (config / "LOCAL_STORAGE_PATH").write_text(str(folder / "objects"))
    (folder / "objects").mkdir()
    dimse_port, http_port, *health = free_ports(4)
    wado = f"http://127.0.0.1:{http_port}/wado-rs"
    common = {
        **os.environ,
        "BUCKET_CONFIG_PATH": str(config),
        "PROVIDER_NAME": "folder",
        "EVENTS_NATS_URL": stack.ready["nats"],
        **_database(str(stack.ready["postgres"])),
        "WADO_INTERNAL_ENDPOINT": wado,
        "WADO_EXTERNAL_ENDPOINT": wado,
    }
    services = {
        "dimse-ingestion": {
            "DIMSE_HOST": "127.0.0.1",
            "DIMSE_PORT": str(dimse_port),
            "DIMSE_NATS_DISABLED": "true",
            "WORKERS": str(workers),
        },
        "dicomweb-ingestion": {"HTTP_PORT": str(http_port)},
    }
    with ExitStack() as running:
        pids = [stack.ready["pids"][name] for name in ("event-processor", "postgres", "nats")]
        for (name, environment), port in zip(services.items(), health, strict=True):
            environment = {**common, **environment, "HEALTH_PORT": str(port)}
            pids.append(running.enter_context(_service(name, environment, port, folder / f"{name}.log")))
        dimse = {"ae_title": "DIMSE_INGESTION", "host": "127.0.0.1", "port": dimse_port}
        yield FolderSpace(dimse, f"http://127.0.0.1:{http_port}/dicomweb", pids, pids[-2])


def _database(address: str) -> dict[str, str]:
    """The manifest itself, as the stack's own services have it."""
    url = urlsplit(address)
    return {
        "DB_HOST": str(url.hostname),
        "DB_PORT": str(url.port),
        "DB_NAME": url.path.strip("/"),
        "DB_USER": str(url.username),
        "DB_PASS": unquote(str(url.password)),
    }


@contextmanager
def _service(name: str, environment: dict[str, str], health: int, log: Path) -> Iterator[int]:
    with log.open("wb") as output:
        process = subprocess.Popen([IMAGING, "run", name], env=environment, stdout=output, stderr=output)
    try:
        _until_ready(health, process, log)
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def _until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).close()
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"the folder space's service did not start:\n{log.read_text()[-2000:]}")

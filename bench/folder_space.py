"""Storage spaces beside the stack's own: a local folder, as Orthanc has, or another S3 server; each with two services
of its own."""

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

import psutil
from s3_server import S3Space

from imaging_services.local.ports import free_ports
from support.stack import Stack

IMAGING = str(Path(sys.executable).with_name("imaging"))


@dataclass(frozen=True)
class FolderSpace:
    """Where the services of the space listen, and the processes that work for it."""

    name: str
    dimse: dict[str, object]
    dicomweb: str
    pids: list[int]
    ingestion_pid: int


@contextmanager
def folder_space(stack: Stack, folder: Path, workers: int = 1) -> Iterator[FolderSpace]:
    """Run `imaging run dimse-ingestion` and `dicomweb-ingestion` on a folder, with the stack's event processor; of the
    former so many processes on one port."""
    (folder / "objects").mkdir(parents=True)
    config = {"LOCAL_STORAGE_PATH": str(folder / "objects")}
    with _space(stack, folder, "folder", config, {}, workers) as space:
        yield space


@contextmanager
def s3_space(stack: Stack, folder: Path, bucket: S3Space) -> Iterator[FolderSpace]:
    """The same two services on a bucket of another S3 server."""
    with _space(stack, folder, bucket.name, bucket.config, bucket.secret, 1) as space:
        space.pids.extend(bucket.pids)
        yield space


@contextmanager
def cached_space(stack: Stack, folder: Path) -> Iterator[FolderSpace]:
    """One more DICOMweb service on the stack's own bucket, which keeps what it reads; the stack's keeps nothing."""
    folder.mkdir(parents=True)
    port, health = free_ports(2)
    environment = {
        **psutil.Process(stack.ready["pids"]["dicomweb"]).environ(),
        "HTTP_PORT": str(port),
        "HEALTH_PORT": str(health),
        "SPACE_CACHE_DIRECTORY": str(folder / "cache"),
    }
    with _service("dicomweb-ingestion", environment, health, folder / "dicomweb.log") as pid:
        pids = [*stack.ready["pids"].values(), pid]
        yield FolderSpace("S3, read before (cache)", {}, f"http://127.0.0.1:{port}/dicomweb", pids, pid)


@contextmanager
def _space(
    stack: Stack, folder: Path, provider: str, config: dict[str, str], secret: dict[str, str], workers: int
) -> Iterator[FolderSpace]:
    dimse_port, http_port, *health = free_ports(4)
    wado = f"http://127.0.0.1:{http_port}/wado-rs"
    common = {
        **os.environ,
        **key_files(folder / "config", "BUCKET_CONFIG_PATH", config),
        **key_files(folder / "secret", "BUCKET_SECRET_PATH", secret),
        "PROVIDER_NAME": provider,
        "EVENTS_NATS_URL": stack.ready["nats"],
        **_database(str(stack.ready["postgres"])),
        "EVENTS_RECORDED_BY": "service",
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
        yield FolderSpace(provider, dimse, f"http://127.0.0.1:{http_port}/dicomweb", pids, pids[-2])


def key_files(folder: Path, variable: str, keys: dict[str, str]) -> dict[str, str]:
    """One file a key, as Kubernetes mounts a ConfigMap or Secret."""
    folder.mkdir(parents=True)
    for key, value in keys.items():
        (folder / key).write_text(value)
    return {variable: str(folder)}


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
    for _ in range(1200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).close()
        except (urllib.error.URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"the space's service did not start:\n{log.read_text()[-2000:]}")

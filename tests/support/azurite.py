"""Azurite, Microsoft's own emulator of Azure Blob, as a real server; installed by ``make azurite``."""

import base64
import hashlib
import hmac
import os
import secrets
import shutil
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from imaging_services.local.ports import LOOPBACK, free_ports
from imaging_services.local.processes import Program, start

MAIN = Path(sys.prefix) / "azurite" / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
_API_VERSION = "2021-12-02"


@dataclass(frozen=True)
class Azurite:
    """A running blob service. ``endpoint`` ends in the account's name, as path-style addresses do."""

    endpoint: str
    account: str
    key: str
    ca_file: Path | None = None

    def keys(self, container: str) -> dict[str, str]:
        """The storage space's keys, as a ConfigMap and a Secret hold them."""
        authority = {"BUCKET_CA_FILE": str(self.ca_file)} if self.ca_file else {}
        return {
            "AZURE_STORAGE_CONNECTION_STRING": self.endpoint,
            "AZURE_CONTAINER_NAME": container,
            "AZURE_STORAGE_ACCOUNT_NAME": self.account,
            "AZURE_STORAGE_ACCOUNT_KEY": self.key,
            **authority,
        }

    def write_keys(self, folder: Path, container: str, **others: str) -> Path:
        """The keys as mounted files; ``others`` are added or replace."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in {**self.keys(container), **others}.items():
            (folder / name).write_text(f"{value}\n")
        return folder

    def create_container(self) -> str:
        """The name of a new container."""
        name = "test-" + secrets.token_hex(8)
        url = f"{self.endpoint}/{name}?restype=container"
        date = format_datetime(datetime.now(UTC), usegmt=True)
        headers = {"x-ms-date": date, "x-ms-version": _API_VERSION}
        # https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
        resource = f"/{self.account}{urlsplit(url).path}\nrestype:container"
        text = f"PUT{chr(10) * 12}x-ms-date:{date}\nx-ms-version:{_API_VERSION}\n{resource}"
        digest = hmac.digest(base64.b64decode(self.key), text.encode(), hashlib.sha256)
        headers["authorization"] = f"SharedKey {self.account}:{base64.b64encode(digest).decode()}"
        verify = ssl.create_default_context(cafile=str(self.ca_file)) if self.ca_file else True
        with httpx.Client(verify=verify, timeout=30) as client:
            answer = client.put(url, headers=headers, content=b"")
        assert answer.status_code == 201, answer.text
        return name


@contextmanager
def running_azurite(
    directory: Path, *, certificate: Path | None = None, key: Path | None = None, ca_file: Path | None = None
) -> Iterator[Azurite]:
    """Azurite for the length of the block; with TLS when there is a certificate."""
    node = shutil.which("node")
    if node is None or not MAIN.exists():
        pytest.fail(
            "Azurite, the Azure Blob server of this test, is not installed: run `make azurite`. It needs Node.js 20 and"
            " npm; on Debian: apt-get install nodejs npm",
            pytrace=False,
        )
    (port,) = free_ports(1)
    account, secret = "imaging", base64.b64encode(os.urandom(64)).decode()
    command = [node, str(MAIN), "--blobHost", LOOPBACK, "--blobPort", str(port), "--location", str(directory)]
    command += ["--disableTelemetry", "--silent"]
    if certificate is not None:
        command += ["--cert", str(certificate), "--key", str(key)]
    program = Program(
        name="azurite",
        command=command,
        log_file=directory / "azurite.log",
        ready=lambda: _listens(port),
        environment={"AZURITE_ACCOUNTS": f"{account}:{secret}"},
        directory=directory,
    )
    child = start(program)
    scheme = "https" if certificate is not None else "http"
    try:
        yield Azurite(f"{scheme}://{LOOPBACK}:{port}/{account}", account, secret, ca_file)
    finally:
        child.stop()


def _listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True

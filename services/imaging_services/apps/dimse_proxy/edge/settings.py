"""Settings of a proxy whose NATS server is a leaf node of its own, beside it inside the hospital."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr

from imaging_services.domain.errors import SettingsError

_PORTS = {"nats-leaf": 7422, "nats": 7422, "tls": 7422, "ws": 80, "wss": 443}
_DOMAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")


class EdgeVariables(BaseModel):
    """The ``EDGE_*`` variables: mix into the proxy's ``Settings``."""

    EDGE: bool = Field(
        default=False,
        description="run an own NATS server as leaf node beside the proxy, as --edge does: images are accepted while "
        "the hub is away; see docs/edge.md",
    )
    EDGE_HUB_URL: str | None = Field(
        default=None,
        description="leaf node listener of the hub's NATS server, or several separated by commas: tls://host:7422; "
        "also nats-leaf:// (no TLS), wss:// and ws://",
    )
    EDGE_HUB_CREDENTIALS_FILE: Path | None = Field(default=None, description="NATS credentials (.creds) for the hub")
    EDGE_HUB_USER: str | None = Field(default=None, description="user for the hub, where it has no credentials files")
    EDGE_HUB_PASSWORD: SecretStr | None = Field(default=None, description="its password")
    EDGE_HUB_CA_FILE: Path | None = Field(
        default=None, description="PEM file of the authorities to trust for the hub instead of the system's"
    )
    EDGE_HUB_CERT_FILE: Path | None = Field(default=None, description="PEM client certificate for the hub")
    EDGE_HUB_KEY_FILE: Path | None = Field(default=None, description="PEM key of the client certificate")
    EDGE_HUB_DOMAIN: str | None = Field(
        default=None,
        description="JetStream domain of the hub; needed where something is delivered to DIMSE_TARGET_HOST",
    )
    EDGE_DOMAIN: str | None = Field(
        default=None,
        description="JetStream domain of this edge: letters, digits, - and _; every edge of a hub needs another",
    )
    EDGE_SPOOL_DIR: Path = Field(
        default=Path("/var/lib/imaging/spool"), description="directory of the spool, on a volume that lasts"
    )
    EDGE_SPOOL_BYTES: int = Field(
        default=50 * 1024**3, ge=1024**2, description="most bytes that wait in the spool; when full, C-STORE gets A700H"
    )
    EDGE_DISK_RESERVE_BYTES: int = Field(
        default=1024**3, ge=0, description="bytes of the disk below the spool that are left free; else as when full"
    )
    EDGE_NATS_PORT: int = Field(default=4222, ge=1, le=65535, description="port of the own NATS server, on loopback")
    EDGE_MONITORING_PORT: int = Field(
        default=8222, ge=1, le=65535, description="its monitoring port, on loopback: says whether the hub is connected"
    )

    def check_edge(self) -> None:
        """Raise ``SettingsError`` for an edge that is not set up wholly."""
        if self.EDGE_DOMAIN and not self.EDGE_SPOOL_DIR.is_dir():
            raise SettingsError(f"EDGE_SPOOL_DIR is {self.EDGE_SPOOL_DIR}, which is no directory: mount a volume there")
        if self.EDGE:
            self.hub_urls()
            self.domain()
            if bool(self.EDGE_HUB_CERT_FILE) != bool(self.EDGE_HUB_KEY_FILE):
                raise SettingsError("EDGE_HUB_CERT_FILE and EDGE_HUB_KEY_FILE go together: set both or none")
            if bool(self.EDGE_HUB_USER) != bool(self.EDGE_HUB_PASSWORD):
                raise SettingsError("EDGE_HUB_USER and EDGE_HUB_PASSWORD go together: set both or none")
            for name in ("CREDENTIALS", "CA", "CERT", "KEY"):
                file = getattr(self, f"EDGE_HUB_{name}_FILE")
                if file is not None and not file.is_file():
                    raise SettingsError(f"EDGE_HUB_{name}_FILE is {file}, which is no file")

    def hub_urls(self) -> list[str]:
        """The hub's addresses, each with scheme and port. Raises ``SettingsError``."""
        if not self.EDGE_HUB_URL:
            raise SettingsError("EDGE_HUB_URL is not set: the edge needs the hub's leaf node listener, tls://host:7422")
        return [_hub_url(one.strip()) for one in self.EDGE_HUB_URL.split(",")]

    def domain(self) -> str:
        """The own JetStream domain. Raises ``SettingsError``."""
        if not self.EDGE_DOMAIN:
            raise SettingsError("EDGE_DOMAIN is not set: name this edge, such as hospital-1, as no other is")
        for name in ("EDGE_DOMAIN", "EDGE_HUB_DOMAIN"):
            if not _DOMAIN.fullmatch(getattr(self, name) or "-"):
                raise SettingsError(f"{name} is {getattr(self, name)!r}: use letters, digits, - and _, at most 64")
        if self.EDGE_DOMAIN == self.EDGE_HUB_DOMAIN:
            raise SettingsError("EDGE_DOMAIN and EDGE_HUB_DOMAIN are the same: each server needs a domain of its own")
        return self.EDGE_DOMAIN


def _hub_url(text: str) -> str:
    parts = urlsplit(text if "://" in text else f"tls://{text}")
    try:
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        host, port = None, None
    if parts.scheme not in _PORTS or not port or not host:
        raise SettingsError(f"EDGE_HUB_URL has {text!r}: write tls://host:7422, or nats-leaf://, wss:// or ws://")
    if parts.username or parts.password:
        raise SettingsError("EDGE_HUB_URL holds a user: put it into EDGE_HUB_USER and EDGE_HUB_PASSWORD")
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}{parts.path.rstrip('/')}"

"""The NATS server of the local stack: JetStream on, every write on disk before it is acknowledged."""

import json
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imaging_services.local.bundled import wheel_program
from imaging_services.local.ports import LOOPBACK
from imaging_services.local.processes import Program

MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
_MEMORY_LIMIT = "128MiB"


@dataclass(frozen=True)
class LeafNodes:
    """The listener for edges: its port, who may connect, and the server's JetStream domain, which edges name."""

    port: int
    user: str
    password: str = field(repr=False)
    domain: str = "hub"

    def configuration(self, host: str) -> str:
        """The block of the server's configuration."""
        who = f"authorization {{ user: {json.dumps(self.user)}, password: {json.dumps(self.password)} }}"
        return f'leafnodes {{\n  listen: "{host}:{self.port}"\n  {who}\n}}\n'


@dataclass(frozen=True)
class NatsServer:
    """Where it keeps its data and listens; ``host`` must include the loopback address."""

    directory: Path
    port: int
    host: str = LOOPBACK
    monitoring_port: int | None = None
    """HTTP port that tells how streams and consumers stand, as KEDA asks; none where it is None."""
    leaf_nodes: LeafNodes | None = None
    """Where edges dial; none where it is None."""

    @property
    def url(self) -> str:
        """Client URL on this machine."""
        return f"nats://{LOOPBACK}:{self.port}"

    def program(self) -> Program:
        """Write the configuration file and say how to run it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        configuration = self.directory / "nats.conf"
        configuration.write_text(self._configuration())
        return Program(
            name="nats",
            command=[str(wheel_program("nats-server")), "--config", str(configuration)],
            log_file=self.directory / "nats.log",
            ready=self.answers,
            environment={"GOMEMLIMIT": _MEMORY_LIMIT, "GOGC": "400"},  # less garbage collection below the limit
            parent_death_signal=signal.SIGTERM,
        )

    def answers(self) -> bool:
        """True when it greets a client and has JetStream."""
        return bool((greeting(self.port) or {}).get("jetstream"))

    def _configuration(self) -> str:
        # sync_interval: by default JetStream flushes every two minutes and a power cut loses what it acknowledged.
        # JSON strings are valid in the server's configuration language.
        # ping_interval: a connection that a firewall forgot stays in its queue group until a ping finds it dead.
        monitoring = f'http: "{self.host}:{self.monitoring_port}"\n' if self.monitoring_port else ""
        leaves = self.leaf_nodes.configuration(self.host) if self.leaf_nodes else ""
        domain = f"\n  domain: {json.dumps(self.leaf_nodes.domain)}" if self.leaf_nodes else ""
        return f"""# Written by imaging at each start; changes here are lost.
listen: "{self.host}:{self.port}"
{monitoring}server_name: local
max_payload: {MAX_PAYLOAD_BYTES}
max_pending: {4 * MAX_PAYLOAD_BYTES}
ping_interval: "10s"
ping_max: 2
{leaves}jetstream {{{domain}
  store_dir: {json.dumps(str(self.directory / "jetstream"))}
  sync_interval: always
  max_memory_store: 64MB
}}
"""


def greeting(port: int, host: str = LOOPBACK, seconds: float = 1) -> dict[str, Any] | None:
    """What a NATS server says of itself to whoever connects; None when none answers."""
    try:
        with socket.create_connection((host, port), timeout=seconds) as connection:
            line = connection.makefile("rb").readline()
        return dict(json.loads(line[5:])) if line.startswith(b"INFO ") else None
    except (OSError, ValueError):
        return None

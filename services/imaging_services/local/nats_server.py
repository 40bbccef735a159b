"""The NATS server of the local stack: JetStream on, every write on disk before it is acknowledged."""

import json
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from imaging_services.local.bundled import wheel_program
from imaging_services.local.ports import LOOPBACK
from imaging_services.local.processes import Program

MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
_MEMORY_LIMIT = "128MiB"


@dataclass(frozen=True)
class NatsServer:
    """Where it keeps its data and listens; ``host`` must include the loopback address."""

    directory: Path
    port: int
    host: str = LOOPBACK
    monitoring_port: int | None = None
    """HTTP port that tells how streams and consumers stand, as KEDA asks; none where it is None."""

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
            environment={"GOMEMLIMIT": _MEMORY_LIMIT},
            parent_death_signal=signal.SIGTERM,
        )

    def answers(self) -> bool:
        """True when it greets a client and has JetStream."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1) as connection:
                greeting = connection.makefile("rb").readline()
        except OSError:
            return False
        return greeting.startswith(b"INFO ") and bool(json.loads(greeting[5:]).get("jetstream"))

    def _configuration(self) -> str:
        # sync_interval: by default JetStream flushes every two minutes and a power cut loses what it acknowledged.
        # JSON strings are valid in the server's configuration language.
        monitoring = f'http: "{self.host}:{self.monitoring_port}"\n' if self.monitoring_port else ""
        return f"""# Written by imaging at each start; changes here are lost.
listen: "{self.host}:{self.port}"
{monitoring}server_name: local
max_payload: {MAX_PAYLOAD_BYTES}
max_pending: {4 * MAX_PAYLOAD_BYTES}
jetstream {{
  store_dir: {json.dumps(str(self.directory / "jetstream"))}
  sync_interval: always
  max_memory_store: 64MB
}}
"""

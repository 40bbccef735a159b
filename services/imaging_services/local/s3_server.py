"""The S3 server of the local stack: SeaweedFS in one process."""

import json
import signal
from dataclasses import dataclass
from pathlib import Path

from imaging_services.domain.errors import BackendUnavailable
from imaging_services.local.bundled import wheel_program
from imaging_services.local.ports import LOOPBACK
from imaging_services.local.processes import Program
from imaging_services.local.readiness import http_put, http_status

REGION = "us-east-1"
PORTS = ("s3", "s3_grpc", "filer", "filer_grpc", "volume", "volume_grpc", "master", "master_grpc")


@dataclass(frozen=True)
class S3Server:
    """Where it keeps its data, its ports by the names of ``PORTS``, and the one identity that may enter."""

    directory: Path
    ports: dict[str, int]
    access_key_id: str
    secret_access_key: str
    host: str = LOOPBACK
    """Where the S3 front listens; it must include the loopback address. The parts behind it stay on that."""

    @property
    def endpoint(self) -> str:
        """Base URL for S3 clients on this machine (path style)."""
        return f"http://{LOOPBACK}:{self.ports['s3']}"

    def program(self) -> Program:
        """Write the configuration and say how to run it."""
        data = self.directory / "data"
        data.mkdir(parents=True, exist_ok=True)
        identities = self.directory / "identities.json"
        identities.touch(mode=0o600)
        identities.write_text(json.dumps(_identities(self.access_key_id, self.secret_access_key)))
        return Program(
            name="s3",
            command=[str(wheel_program("weed")), "-logtostderr", "server", *self._flags(data, identities)],
            log_file=self.directory / "s3.log",
            ready=self.answers,
            environment={
                # It holds about 180 MiB at rest, 128 of them untouched: with a lower limit its collector never stops.
                "GOMEMLIMIT": "320MiB",
                "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",  # one volume a bucket, not seven
            },
            directory=self.directory,
            # On SIGTERM it waits 15 s for streams between its own parts. What it acknowledged is in the files by then
            # (write(2), no buffers of its own), and nothing else talks to it once the services have stopped.
            stop_signal=signal.SIGKILL,
        )

    def answers(self) -> bool:
        """True when the S3 front answers and a volume server has joined, so that an object could be stored."""
        return (
            http_status(self.ports["s3"], "/status") == 200
            and http_status(self.ports["master"], "/dir/assign?count=1") == 200
        )

    def sync_writes(self) -> None:
        """Have the bytes of every object synced to disk before it is acknowledged; the server must be running.

        Raises ``BackendUnavailable``. The names of objects are in the filer's LevelDB, which is written at once but
        not synced: after a power cut, not after a crash, the last ones may be missing.
        """
        rules = {"version": 1, "locations": [{"locationPrefix": "/buckets/", "fsync": True}]}
        place = f"http://{LOOPBACK}:{self.ports['filer']}/etc/seaweedfs/filer.conf"
        status = http_put(place, json.dumps(rules).encode())
        if status not in (200, 201):
            raise BackendUnavailable(f"the S3 server does not take its storage rules (status {status})")

    def _flags(self, data: Path, identities: Path) -> list[str]:
        flags = {
            "dir": str(data),
            "ip": LOOPBACK,
            "ip.bind": LOOPBACK,
            "filer": "true",
            "filer.concurrentUploadLimitMB": "32",
            "s3": "true",
            "s3.ip.bind": self.host,
            "s3.config": str(identities),
            "s3.port.iceberg": "0",
            "s3.port.lance": "0",
            "s3.iam": "false",
            "master.telemetry": "false",
            "master.electionTimeout": "300ms",  # one master: no election to lose, and the default costs 10 s a start
            "master.heartbeatInterval": "50ms",
            "master.volumeSizeLimitMB": "1024",
            "volume.max": "10000",
            "volume.minFreeSpace": "1GiB",
            "volume.preStopSeconds": "0",
        }
        for name, port in self.ports.items():
            component, _, kind = name.partition("_")
            flags[f"{component}.port{'.grpc' if kind else ''}"] = str(port)
        return [f"-{name}={value}" for name, value in flags.items()]


def _identities(access_key_id: str, secret_access_key: str) -> dict[str, object]:
    credentials = [{"accessKey": access_key_id, "secretKey": secret_access_key}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return {"identities": [{"name": "imaging", "credentials": credentials, "actions": actions}]}

"""The NATS server of an edge: a leaf node that keeps its own JetStream, listens on loopback, and dials the hub."""

import json
import secrets
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from imaging_services.apps.dimse_proxy.settings import Settings
from imaging_services.domain.errors import SettingsError
from imaging_services.domain.relay.spool import LEAST_FREE
from imaging_services.domain.relay.subjects import RelaySubjects
from imaging_services.local.bundled import wheel_program
from imaging_services.local.data_folder import write_private
from imaging_services.local.nats_server import MAX_PAYLOAD_BYTES, greeting
from imaging_services.local.ports import LOOPBACK
from imaging_services.local.processes import Program
from imaging_services.local.readiness import http_status

_USER = "proxy"
_UNAVAILABLE = 503
_MEMORY_LIMIT = "384MiB"
_STEP_BYTES = 16 * 1024 * 1024
_SLACK_BYTES = 256 * 1024 * 1024
"""What the server takes beyond the spool's size: ends of associations, and instances under way when it became full."""


@dataclass(frozen=True)
class LeafNode:
    """Its data and configuration lie in the spool directory; the local password is another at each start."""

    settings: Settings
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    @property
    def directory(self) -> Path:
        """The spool."""
        return self.settings.EDGE_SPOOL_DIR.expanduser().resolve()

    @property
    def url(self) -> str:
        """Client URL on this machine, with the password."""
        return f"nats://{_USER}:{self.password}@{LOOPBACK}:{self.settings.EDGE_NATS_PORT}"

    def program(self) -> Program:
        """Write the configuration file and say how to run it. Raises ``SettingsError``."""
        server = wheel_program("nats-server")
        configuration = self.directory / "nats.conf"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            write_private(configuration, self.configuration())
        except OSError as error:
            raise SettingsError(f"EDGE_SPOOL_DIR {self.directory} cannot be written: {error.strerror}") from None
        return Program(
            name="nats",
            command=[str(server), "--config", str(configuration)],
            log_file=None,
            ready=self.answers,
            # collect garbage less often than by default, as long as the limit is far: a fifth of its CPU time
            environment={"GOMEMLIMIT": _MEMORY_LIMIT, "GOGC": "400"},
            start_seconds=600,
            progress=_read_so_far,  # after a power cut it reads the whole spool first, however long that takes
            parent_death_signal=signal.SIGTERM,
        )

    def answers(self) -> bool:
        """True when it greets a client and has JetStream, which it has no longer once it met a full disk."""
        return bool((greeting(self.settings.EDGE_NATS_PORT) or {}).get("jetstream"))

    def stores(self) -> bool:
        """False when it does not write: a stream that once met a full disk takes nothing more, however much room there
        is again, while the server goes on to answer."""
        return self.answers() and http_status(self.settings.EDGE_MONITORING_PORT, "/healthz") != _UNAVAILABLE

    def has_room(self) -> bool:
        """The disk has the reserve, or at least what JetStream needs to start."""
        return shutil.disk_usage(self.directory).free >= max(self.settings.EDGE_DISK_RESERVE_BYTES, LEAST_FREE)

    def configuration(self) -> str:
        """The server's configuration file; JSON is valid in its language."""
        # sync_interval: by default JetStream flushes every two minutes and a power cut loses what it acknowledged.
        # js_ack_fc_v2: acknowledgements name the domain. Without that, one for the third message of another edge
        # acknowledges the third of this one, too, since all edges call their streams alike.
        # max_pending, write_deadline: all that the hub has asked for waits for the line, and a slow line is no dead
        # one; ping_interval finds dead ones in a minute or so: a ping has to wait behind what was asked for.
        settings, local = self.settings, f"{LOOPBACK}:{self.settings.EDGE_NATS_PORT}"
        return f"""# Written by imaging at each start; changes here are lost.
listen: {json.dumps(local)}
http: {json.dumps(f"{LOOPBACK}:{settings.EDGE_MONITORING_PORT}")}
server_name: {json.dumps(f"edge-{settings.domain()}")}
authorization {{ user: {json.dumps(_USER)}, password: {json.dumps(self.password)} }}
max_payload: {MAX_PAYLOAD_BYTES}
max_pending: {16 * MAX_PAYLOAD_BYTES}
write_deadline: "60s"
ping_interval: "10s"
ping_max: 6
feature_flags {{ js_ack_fc_v2: true }}
jetstream {{
  store_dir: {json.dumps(str(self.directory / "jetstream"))}
  domain: {json.dumps(settings.domain())}
  sync_interval: always
  max_memory_store: 64MB
  max_file_store: {settings.EDGE_SPOOL_BYTES + _SLACK_BYTES}
}}
leafnodes {{ remotes: [ {json.dumps(self._remote())} ] }}
"""

    def _remote(self) -> dict[str, object]:
        settings = self.settings
        root = settings.DIMSE_NATS_SUBJECT_ROOT
        # Streams of other servers listen to the same subjects, and would keep the same instances as well.
        kept = [subject for channel in "AB" for subject in RelaySubjects(root, channel).kept] + [f"{root}.*.jobs.>"]
        remote: dict[str, object] = {
            "urls": [self._with_user(url) for url in settings.hub_urls()],
            "deny_imports": kept,
            "deny_exports": kept,
            "ignore_discovered_servers": True,  # what the hub calls itself inside its network is of no use here
            # By default it compresses the harder the longer the round trip, and then at a few MB/s. The relay can do it
            # better, before the spool (docs/relay.md).
            "compression": "off",
            "request_isolation": True,  # other edges' subscriptions are none of ours
        }
        if settings.EDGE_HUB_CREDENTIALS_FILE:
            remote["credentials"] = str(settings.EDGE_HUB_CREDENTIALS_FILE.resolve())
        tls = {
            "ca_file": settings.EDGE_HUB_CA_FILE,
            "cert_file": settings.EDGE_HUB_CERT_FILE,
            "key_file": settings.EDGE_HUB_KEY_FILE,
        }
        if given := {name: str(file.resolve()) for name, file in tls.items() if file}:
            remote["tls"] = given
        return remote

    def _with_user(self, url: str) -> str:
        user, password = self.settings.EDGE_HUB_USER, self.settings.EDGE_HUB_PASSWORD
        if not user or password is None:
            return url
        parts = urlsplit(url)
        who = f"{quote(user, safe='')}:{quote(password.get_secret_value(), safe='')}"
        return urlunsplit(parts._replace(netloc=f"{who}@{parts.netloc}"))


def _read_so_far(pid: int) -> int:
    """Steps of 16 MiB that a process has read, 0 where /proc does not tell. A server that hangs reads no more than what
    its monitoring port is asked."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // _STEP_BYTES for line in lines if line.startswith("rchar:")), 0)

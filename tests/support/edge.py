"""An edge as a hospital runs it, ``imaging run dimse-proxy --edge`` in a process of its own, and a hub."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.domain.dicom.command_set import CommandField, request, store_request
from imaging_services.domain.dicom.dimse import ProposedContext
from imaging_services.local.ports import free_ports
from imaging_services.local.readiness import http_get, http_status
from support.nats_process import NatsProcess
from support.relay import CT, EXPLICIT, FIND
from support.webhook import wait_until

IMAGING = str(Path(sys.executable).with_name("imaging"))
VERIFICATION = "1.2.840.10008.1.1"


@contextmanager
def a_hub(folder: Path, domain: str = "hub") -> Iterator[tuple[NatsProcess, int]]:
    """A NATS server that leaf nodes may dial, and the port for them."""
    folder.mkdir()
    (leaf_nodes,) = free_ports(1)
    more = f'leafnodes {{ listen: "127.0.0.1:{leaf_nodes}" }}\n'
    with NatsProcess(folder, max_payload=16 * 1024 * 1024, more=more, domain=domain) as hub:
        yield hub, leaf_nodes


class Edge:
    """One edge, which may be killed and started again on the same spool."""

    def __init__(self, folder: Path, hub_port: int, root: str, domain: str, **more: object) -> None:
        folder.mkdir()
        self.folder, self._process = folder, None
        self.port, self.health, nats, monitoring = free_ports(4)
        self.environment = {
            "EDGE_HUB_URL": f"nats-leaf://127.0.0.1:{hub_port}",
            "EDGE_DOMAIN": domain,
            "EDGE_SPOOL_DIR": str(folder / "spool"),
            "EDGE_NATS_PORT": str(nats),
            "EDGE_MONITORING_PORT": str(monitoring),
            "EDGE_DISK_RESERVE_BYTES": "0",
            "DIMSE_HOST": "127.0.0.1",
            "DIMSE_PORT": str(self.port),
            "DIMSE_AE": "CLOUD",
            "DIMSE_NATS_SUBJECT_ROOT": root,
            "HEALTH_PORT": str(self.health),
            "LOG_FORMAT": "console",
            "DRAIN_SECONDS": "3",
            **{name: str(value) for name, value in more.items()},
        }

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it and wait until it takes images."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [IMAGING, "run", "dimse-proxy", "--edge"],
                env={"PATH": os.environ["PATH"], **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.until_ready()

    def until_ready(self) -> None:
        process = self._process
        wait_until(lambda: process.poll() is not None or http_status(self.health, "/readyz") == 200, 90)
        assert process.poll() is None, self.log

    def children(self, name: str) -> list[psutil.Process]:
        """Running processes of the edge whose command line has ``name``."""
        return [
            one for one in psutil.Process(self._process.pid).children(recursive=True) if name in " ".join(one.cmdline())
        ]

    def kill(self, name: str) -> None:
        """SIGKILL for one of its processes; wait until it has been replaced."""
        (before,) = self.children(name)
        before.kill()
        before.wait(30)
        wait_until(lambda: len(self.children(name)) == 1, 60)

    def kill_all(self) -> None:
        """As a power cut: everything at once."""
        whole = [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]
        for one in whole:
            one.kill()
        self._process.wait(30)
        psutil.wait_procs(whole, 30)
        self._process = None

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(60)
        self._process = None
        return code

    def close(self) -> None:
        if self._process is not None:
            self.kill_all()

    def status(self) -> dict[str, Any]:
        """What ``imaging edge status`` says."""
        address = f"http://127.0.0.1:{self.health}"
        command = [IMAGING, "edge", "status", "--json", "--seconds", "0.3", "--url", address]
        return dict(json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout))

    def metric(self, name: str) -> float:
        """A value of /metrics, 0 while there is none."""
        answer = http_get(f"http://127.0.0.1:{self.health}/metrics")
        text = answer[1].decode() if answer else ""
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == f"imaging_edge_{name}":
                    return sample.value
        return 0.0


@asynccontextmanager
async def a_modality(edge: Edge) -> AsyncIterator["Modality"]:
    """One association with the edge."""
    contexts = tuple(ProposedContext(2 * i + 1, uid, (EXPLICIT,)) for i, uid in enumerate((CT, FIND, VERIFICATION)))
    requestor = await RemoteAE("127.0.0.1", edge.port).associate(
        calling_ae_title="CT1", called_ae_title="CLOUD", contexts=contexts
    )
    try:
        yield Modality(requestor)
    finally:
        await requestor.release()


class Modality:
    """Requests over one association; each gives its status."""

    def __init__(self, requestor) -> None:
        self._requestor = requestor
        self._number = 0

    async def store(self, uid: str, data: bytes) -> int:
        self._number += 1
        return (await self._requestor.store(1, store_request(CT, uid, message_id=self._number), data)).status

    async def find(self) -> int:
        return await self._asked(
            3,
            request(CommandField.C_FIND_RQ, FIND, message_id=901, has_data_set=True),
            b"\x08\x00\x52\x00CS\x06\x00STUDY ",
        )

    async def echo(self) -> int:
        return await self._asked(5, request(CommandField.C_ECHO_RQ, VERIFICATION, message_id=902))

    async def _asked(self, context: int, command, data: bytes | None = None) -> int:
        return [one.command.status async for one in self._requestor.request(context, command, data)][-1]

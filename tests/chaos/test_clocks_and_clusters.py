"""Clocks that jump, and a NATS cluster of three that loses a member, under load."""

import glob
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from imaging_services.local.ports import free_ports
from support.audit import until
from support.chaos import chaos
from support.chaos_summary import Summary

SECONDS = 8  # that a fault lasts
REPLICAS = {"DIMSE_STREAM_REPLICAS": "3", "EVENTS_REPLICAS": "3"}
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    # pynetdicom leaves the socket of a connection that was refused to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


# Clocks: libfaketime (Debian: libfaketime) in the services' processes only, so that they disagree with their servers.


def faked(offset: Path) -> dict[str, str]:
    """What the services' environment needs; the file's text is the difference to the real time."""
    found = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    assert found, "libfaketime is missing: install Debian's package libfaketime"
    offset.write_text("+0s")
    return {
        "LD_PRELOAD": found[0],
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


@pytest.mark.parametrize("jump", ["+600s", "-600s"], ids=["ahead", "back"])
def test_the_clock_of_the_services_jumps(tmp_path: Path, summary: Summary, jump: str) -> None:
    """By ten minutes, which S3's signatures still allow, and back again."""
    offset = tmp_path / "offset"
    with (
        chaos(tmp_path, summary, environment=faked(offset)) as whole,
        whole.case(f"the clock jumps by {jump}", patience=120, settle=120) as load,
    ):
        for text in (jump, "+0s"):
            load.goes_on()
            with load.fault(f"clock {text}"):
                offset.write_text(text)
                time.sleep(SECONDS)
            load.goes_on(90, after=True)


# A cluster


class Member:
    """One server of a NATS cluster."""

    def __init__(self, folder: Path, number: int, ports: list[int], routes: list[int]) -> None:
        self.port = ports[number]
        self._config = folder / f"nats-{number}.conf"
        peers = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in routes)
        self._config.write_text(
            f'listen: "127.0.0.1:{self.port}"\nserver_name: "n{number}"\nmax_payload: 16MB\nmax_pending: 64MB\n'
            f'ping_interval: "10s"\njetstream {{ store_dir: "{folder / f"js-{number}"}", sync_interval: always }}\n'
            f'cluster {{ name: "c", listen: "127.0.0.1:{routes[number]}", routes: [{peers}] }}\n'
        )
        self._log = folder / f"nats-{number}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """It joins by itself."""
        program = Path(sys.executable).parent / "nats-server"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([program, "-c", self._config], stderr=log, stdout=log)

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def has_leader(self) -> bool:
        """True once its log says that there is a leader."""
        return "JetStream cluster new metadata leader" in self._log.read_text(errors="replace")


@contextmanager
def cluster(folder: Path) -> Iterator[list[Member]]:
    """Three servers that have found a leader."""
    ports, routes = free_ports(3), free_ports(3)
    members = [Member(folder, number, ports, routes) for number in range(3)]
    with ExitStack() as running:
        for member in members:
            member.start()
            running.callback(member.kill)
        until(lambda: any(member.has_leader() for member in members), 60, "the cluster has a leader")
        yield members


def test_a_cluster_of_three_loses_one_member_after_the_other(tmp_path: Path, summary: Summary) -> None:
    with cluster(tmp_path) as members:
        urls = [f"nats://127.0.0.1:{member.port}" for member in members]
        with (
            chaos(tmp_path, summary, environment=REPLICAS, nats_url=",".join(urls)) as whole,
            whole.case("a NATS cluster loses members", patience=120, settle=120, large_every=40) as load,
        ):
            whole.stack.instead["nats"] = urls
            for number, member in enumerate(members):
                load.goes_on()
                with load.fault(f"kill -9 of NATS server {number} of three"):
                    member.kill()
                    time.sleep(SECONDS)
                load.goes_on(90, after=True)
                member.start()
                time.sleep(SECONDS)  # to catch up: with two of three missing nothing could be kept

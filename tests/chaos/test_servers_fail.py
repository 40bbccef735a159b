"""Servers that are killed, stopped, hung, full, or that no longer know the services' credentials, under load."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from support.audit import until
from support.chaos import Chaos, chaos
from support.chaos_summary import Summary
from support.disks import fill, small_disk
from support.faults import hanging, kill

SECONDS = 8  # that a fault lasts
ROOM = 2560 << 20  # bytes of the small disks: SeaweedFS wants a GiB to stay free, and tmpfs takes what is used
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    # pynetdicom leaves the socket of a connection that was refused to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, summary: Summary) -> Iterator[Chaos]:
    with chaos(tmp_path_factory.mktemp("chaos"), summary) as running:
        yield running


@pytest.mark.parametrize("server", ["nats", "postgres", "s3"])
def test_a_server_hangs(whole: Chaos, server: str) -> None:
    with whole.case(f"{server} hangs (SIGSTOP)", patience=120, settle=120) as load:
        load.goes_on()
        with load.fault(f"{server} hangs"), hanging(whole.stack.ready["pids"][server]):
            time.sleep(SECONDS)
        load.goes_on(90, after=True)


@pytest.mark.parametrize("server", ["nats", "postgres", "s3"])
def test_a_server_is_away(whole: Chaos, server: str) -> None:
    """Killed, and out of reach for a while although it is started again at once."""
    wires = [whole.wires[name] for name in (("nats", "wan") if server == "nats" else (server,))]
    with whole.case(f"{server} is away", patience=120, settle=120) as load:
        load.goes_on()
        with load.fault(f"{server} is away"):
            for wire in wires:
                wire.refuse()
            kill(whole.stack, server)
            time.sleep(SECONDS)
            for wire in wires:
                wire.mend()
        load.goes_on(90, after=True)


@pytest.mark.parametrize(
    ("mode", "signum"), [("fast", signal.SIGINT), ("immediate", signal.SIGQUIT)], ids=["fast", "immediate"]
)
def test_postgresql_is_restarted(whole: Chaos, mode: str, signum: signal.Signals) -> None:
    with whole.case(f"PostgreSQL restarted ({mode} shutdown)", patience=120, settle=120) as load:
        for _ in range(3):
            load.goes_on()
            with load.fault(f"{mode} shutdown"):
                kill(whole.stack, "postgres", signum=signum)
            load.goes_on(90, after=True)


# Credentials


def test_the_storage_space_has_other_credentials_for_a_while(whole: Chaos) -> None:
    """A rotation gone wrong: services are started anew with a secret that the server does not take, then with the
    right one, as the operator does when a Secret changes."""
    secret = whole.stack.ready_file.parent / "data" / "config" / "bucket-secret" / "AWS_SECRET_ACCESS_KEY"
    right = secret.read_text()
    users = ("dimse-ingestion", "dimse-ingestion-2", "dicomweb")
    with whole.case("wrong S3 credentials", patience=120, settle=120) as load:
        load.goes_on()
        with load.fault("wrong S3 credentials"):
            secret.write_text("not-the-secret")
            for name in users:
                os.kill(whole.stack.ready["pids"][name], signal.SIGKILL)
            time.sleep(SECONDS)
            secret.write_text(right)
        until(lambda: set(users) <= whole.stack.ready["pids"].keys(), 60, "they run")
        kill(whole.stack, *users)
        load.goes_on(90, after=True)


def test_the_database_has_another_password_for_a_while(whole: Chaos) -> None:
    address = whole.stack.ready["postgres"]
    password = address.split(":")[2].split("@")[0]
    with (
        psycopg.connect(address, autocommit=True) as administrator,
        whole.case("wrong PostgreSQL password", patience=120, settle=120) as load,
    ):
        load.goes_on()
        with load.fault("wrong PostgreSQL password"):
            administrator.execute("ALTER USER imaging PASSWORD 'another'")
            administrator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                " AND backend_type = 'client backend'"
            )
            time.sleep(SECONDS)
            administrator.execute(f"ALTER USER imaging PASSWORD '{password}'")
        load.goes_on(90, after=True)


# Full disks


def fill_for_a_while(folder: Path) -> None:
    """Not a byte is left, also of what is freed meanwhile."""
    filler, end = folder / "filler", time.monotonic() + SECONDS
    with filler.open("ab", buffering=0) as file:
        try:
            while time.monotonic() < end:
                fill(file.fileno(), folder)
                time.sleep(0.2)
        finally:
            filler.unlink()


@pytest.mark.root
@pytest.mark.parametrize("server", ["nats", "postgres", "s3"])
def test_a_disk_is_full(tmp_path: Path, summary: Summary, server: str) -> None:
    """Senders are told to come back, and go on when there is room again."""
    with (
        small_disk(tmp_path / "data" / server, ROOM) as disk,
        chaos(tmp_path, summary) as whole,
        whole.case(f"the disk of {server} is full", patience=150, settle=150, large_every=40) as load,
    ):
        load.goes_on()
        with load.fault(f"the disk of {server} is full"):
            fill_for_a_while(disk)
        if server != "postgres":  # JetStream switches itself off when it cannot write, until it is started again;
            kill(whole.stack, server)  # SeaweedFS may answer 500 for a key that it could not write, until then
        load.goes_on(120, after=True)

"""Ports for servers: different ones to everybody who asks, and out of the way of outgoing connections."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from imaging_services.local.ports import FIRST, LAST, LOOPBACK, free_ports


def test_ports_are_in_the_range_and_nobody_gets_one_twice() -> None:
    program = "from imaging_services.local.ports import free_ports; print(*free_ports(20))"
    asking = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    ports = [int(port) for each in asking for port in each.communicate(timeout=60)[0].split()]
    ports += free_ports(20)
    assert len(set(ports)) == 100
    assert min(ports) >= FIRST
    assert max(ports) <= LAST


def test_the_kernel_does_not_use_them_for_outgoing_connections() -> None:
    first_of_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert first_of_kernel > LAST


def test_a_port_that_somebody_listens_on_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind((LOOPBACK, free_ports(1)[0] % LAST + 1))
        taken.listen()
        assert taken.getsockname()[1] not in free_ports(3)


def test_without_a_place_for_the_turn_there_are_ports_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert len(set(free_ports(5))) == 5


def test_what_was_kept_may_be_nonsense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    free_ports(1)
    (kept,) = tmp_path.iterdir()
    for nonsense in ("", "no number", "99999999"):
        kept.write_text(nonsense)
        assert FIRST <= free_ports(1)[0] <= LAST
    kept.write_text(str(LAST))
    assert set(free_ports(2)) & {LAST, FIRST}

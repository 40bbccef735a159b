"""When the NATS server of an edge is started again."""

import os
from pathlib import Path

import pytest

from imaging_services.apps.dimse_proxy.settings import Settings
from imaging_services.domain.relay.spool import LEAST_FREE
from imaging_services.local import leaf_node
from imaging_services.local.edge import ServerWatch
from imaging_services.local.leaf_node import LeafNode, _read_so_far

ILL = 3  # looks


def looks(watch: ServerWatch, pid: int | None, *states: bool | None) -> list[bool]:
    """What each look says: True answers, False does not, None does not either, and the disk is full."""
    return [watch.is_ill(pid, answers=bool(state), has_room=state is not None) for state in states]


def test_a_server_that_has_answered_is_ill_after_three_looks_without() -> None:
    watch = ServerWatch(None)
    assert looks(watch, 7, True, False, False) == [False] * ILL
    assert looks(watch, 7, True, False, False, False) == [False, False, False, True]


def test_one_that_reads_its_spool_is_left_alone_however_long_it_takes() -> None:
    watch = ServerWatch(7)
    assert looks(watch, 7, False, False) == [False, False]
    assert looks(watch, None, False) == [False]
    assert not any(looks(watch, 8, *[False] * 100))
    assert looks(watch, 8, True, False, False, False) == [False, False, False, True]
    assert not any(looks(watch, 8, False, False)), "it is told once, and then given time to end"


def test_one_that_was_ready_when_the_watch_began_need_not_answer_again() -> None:
    assert looks(ServerWatch(7), 7, False, False, False) == [False, False, True]


def test_it_is_left_alone_while_the_disk_is_full() -> None:
    watch = ServerWatch(7)
    assert looks(watch, 7, False, False, None, None, False, False, False) == [False] * 6 + [True]


def test_who_reads_little_does_not_get_on(tmp_path: Path) -> None:
    """A server that hangs while it reads its spool may still answer its monitoring port."""
    so_far = [_read_so_far(os.getpid())]
    for size in (64 * 1024, 64 * 1024, 32 * 1024 * 1024):
        (tmp_path / "file").write_bytes(bytes(size))
        (tmp_path / "file").read_bytes()
        so_far.append(_read_so_far(os.getpid()))
    assert so_far[2] - so_far[0] <= 1
    assert so_far[3] - so_far[2] >= 2
    assert _read_so_far(2**30) == 0


def a_node(folder: Path) -> LeafNode:
    given = {"EDGE_HUB_URL": "nats-leaf://127.0.0.1:1", "EDGE_DOMAIN": "one", "EDGE_DISK_RESERVE_BYTES": 0}
    return LeafNode(Settings(EDGE=True, EDGE_SPOOL_DIR=folder, **given))


@pytest.mark.parametrize(
    ("answers", "health", "stores"),
    [(True, 200, True), (True, 503, False), (True, None, True), (False, 200, False)],
)
def test_a_server_with_a_stream_that_takes_nothing_does_not_store(
    answers: bool, health: int | None, stores: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LeafNode, "answers", lambda _: answers)
    monkeypatch.setattr(leaf_node, "http_status", lambda port, path: health)
    assert a_node(tmp_path).stores() is stores


@pytest.mark.parametrize(("free", "has_room"), [(LEAST_FREE, True), (LEAST_FREE - 1, False)])
def test_without_a_reserve_a_full_disk_is_no_room_either(
    free: int, has_room: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaf_node.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    assert a_node(tmp_path).has_room() is has_room

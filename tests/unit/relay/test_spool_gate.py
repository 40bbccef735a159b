"""When an edge takes instances."""

import pytest

from imaging_services.domain.errors import OutOfResources
from imaging_services.domain.relay.spool import SpoolGate


def test_it_closes_when_the_spool_is_full_and_opens_when_there_is_room_again() -> None:
    gate = SpoolGate(limit=1000, reserve=100)
    gate.look(used=900, free=10_000)
    gate.took(99)
    gate.require_room()
    gate.took(1)
    with pytest.raises(OutOfResources, match="spool is full: 1,000 of 1,000 bytes"):
        gate.require_room()
    gate.look(used=960, free=10_000, taken=gate.taken)
    assert not gate.is_open
    gate.look(used=950, free=10_000)
    gate.require_room()


def test_a_full_disk_closes_it_although_the_limit_is_not_reached() -> None:
    gate = SpoolGate(limit=1000, reserve=100)
    gate.look(used=10, free=120)
    gate.took(21)
    with pytest.raises(OutOfResources, match="disk below the spool is full: 99 bytes free"):
        gate.require_room()
    gate.look(used=31, free=100, taken=21)
    assert not gate.is_open
    gate.look(used=29, free=102)
    assert gate.is_open


@pytest.mark.parametrize("disk", [1_001, 2_200, 20_000, 200_000])
def test_one_that_has_closed_opens_again_on_a_disk_smaller_than_the_limit(disk: int) -> None:
    gate = SpoolGate(limit=100_000, reserve=1_000)
    gate.look(used=0, free=disk)
    gate.refused()
    gate.look(used=0, free=disk)
    assert gate.is_open
    gate.look(used=disk - 999, free=999)
    assert not gate.is_open
    gate.look(used=0, free=999)
    assert not gate.is_open
    gate.look(used=0, free=disk)
    assert gate.is_open


def test_what_is_taken_during_a_look_counts_until_the_next() -> None:
    gate = SpoolGate(limit=1000, reserve=0)
    gate.took(400)
    begun = gate.taken
    gate.took(300)
    gate.look(used=400, free=10_000, taken=begun)
    gate.took(299)
    assert gate.is_open
    gate.took(1)
    assert not gate.is_open


def test_the_servers_no_counts_until_the_spool_was_seen_with_room() -> None:
    gate = SpoolGate(limit=1000, reserve=0)
    gate.refused()
    with pytest.raises(OutOfResources, match="the NATS server has no room"):
        gate.require_room()
    gate.look(used=950, free=10_000)
    gate.require_room()


@pytest.mark.parametrize("reserve", [0, 1 << 30])
def test_a_server_that_says_nothing_on_a_full_disk_is_not_asked(reserve: int) -> None:
    gate = SpoolGate(limit=1 << 40, reserve=reserve)
    gate.look(used=10, free=2 << 30)
    gate.look_at_disk(free=2 << 30)
    gate.require_room()
    gate.look_at_disk(free=4096)
    with pytest.raises(OutOfResources, match="disk below the spool is full: 4,096 bytes free"):
        gate.require_room()
    gate.look_at_disk(free=2 << 30)
    assert not gate.is_open, "whether the server takes anything again only it can tell"
    gate.look(used=10, free=2 << 30)
    assert gate.is_open

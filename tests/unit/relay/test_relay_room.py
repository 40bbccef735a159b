"""Room for messages in flight: bounded in total, shared between queues that are long and such that are not."""

import asyncio

import pytest

from imaging_services.adapters.nats.relay_room import Lane, Room

MIB = 1024 * 1024


def granted(lane: Lane):
    """What the lane may ask for now, or None."""
    lane.wants, lane.granted = True, None
    lane.event.clear()
    lane.room.share_out()
    return lane.granted


def take(lane: Lane, size: int, left: int, count: int = 1) -> None:
    for _ in range(count):
        lane.took(size, size, left)


async def test_a_queue_alone_has_all_of_it():
    lane = Room(32, 64 * MIB, 8 * MIB, joined=False).lane()
    grant = granted(lane)
    assert (grant.messages, grant.size) == (32, 64 * MIB)
    assert granted(lane) is None


async def test_a_queue_that_others_may_join_leaves_room_for_them_until_it_is_long():
    room = Room(32, 64 * MIB, 8 * MIB)
    lane = room.lane()
    assert granted(lane).size == 32 * MIB
    lane.took(MIB, MIB, left=100)
    assert granted(lane).size == 32 * MIB
    assert lane.held == 64 * MIB
    lane.ended(None, None)
    assert granted(lane) is None or lane.held <= 32 * MIB
    assert granted(room.lane()) is not None


async def test_room_is_granted_again_by_the_quarter():
    lane = Room(32, 64 * MIB, 8 * MIB, joined=False).lane()
    granted(lane)
    take(lane, MIB, left=1000, count=32)
    assert granted(lane) is None
    for _ in range(7):
        lane.done(MIB)
        assert lane.granted is None
    lane.done(MIB)
    assert lane.granted.messages == 8


async def test_less_than_twice_the_largest_message_is_never_all():
    grant = granted(Room(1000, 1, 8 * MIB, joined=False).lane())
    assert grant.size == 16 * MIB


async def test_a_long_queue_leaves_room_for_another():
    room = Room(256, 64 * MIB, MIB)
    long, other = room.lane(), room.lane()
    for _ in range(20):  # it takes whatever it may have, and nothing is done
        if grant := granted(long):
            take(long, grant.size // grant.messages, left=100_000, count=grant.messages)
    assert long.held < 49 * MIB
    assert granted(other).size == 16 * MIB


async def test_two_long_queues_end_up_with_the_same():
    room = Room(1000, 64 * MIB, MIB)
    lanes = [room.lane(), room.lane()]
    first = granted(lanes[0])
    take(lanes[0], MIB, left=10_000, count=first.size // MIB)
    for turn in range(400):
        for lane in lanes:
            if grant := granted(lane):
                lane.ended(grant.messages - grant.size // MIB, 0)
                lane.asked.messages = grant.size // MIB
                take(lane, MIB, left=10_000, count=grant.size // MIB)
        oldest = lanes[turn % 2]
        if oldest.working.messages:
            oldest.done(MIB)
    assert abs(lanes[0].held - lanes[1].held) <= 8 * MIB


async def test_many_queues_together_stay_within_the_bound():
    room = Room(256, 64 * MIB, 8 * MIB)
    lanes = [room.lane() for _ in range(100)]
    for _ in range(3):
        for lane in lanes:
            if grant := granted(lane):
                take(lane, min(grant.size // grant.messages, 8 * MIB), left=1000, count=grant.messages)
    assert sum(lane.held for lane in lanes) <= 64 * MIB
    assert sum(lane.working.messages + lane.asked.messages for lane in lanes) <= 256
    assert all(lane.held for lane in lanes)


async def test_a_message_larger_than_its_queues_share_gets_through_beside_full_queues():
    room = Room(256, 64 * MIB, 8 * MIB)
    lanes = [room.lane() for _ in range(100)]
    for _ in range(3):
        for lane in lanes[1:]:
            if grant := granted(lane):
                take(lane, min(grant.size // grant.messages, 8 * MIB), left=1000, count=grant.messages)
    small = granted(lanes[0])
    assert small.size < 8 * MIB
    lanes[0].ended(small.messages, small.size, too_large=True)
    large = granted(lanes[0])
    assert (large.messages, large.size) == (1, 8 * MIB)
    take(lanes[0], 7 * MIB, left=0)
    assert not lanes[0].blocked


async def test_a_message_without_room_beside_those_at_work_is_not_asked_for_over_and_over():
    room = Room(256, 16 * MIB, 4 * MIB)
    lane, _ = room.lane(), room.lane()
    grant = granted(lane)
    take(lane, MIB, left=5)
    lane.ended(grant.messages - 1, grant.size - MIB, too_large=True)
    assert granted(lane) is None
    lane.done(MIB)
    assert lane.granted is not None


async def test_a_queue_that_leaves_gives_its_room_back_when_its_work_is_done():
    room = Room(8, 64 * MIB, MIB, joined=False)
    gone, stays = room.lane(), room.lane()
    granted(gone)
    take(gone, 20 * MIB, left=0)
    gone.leave()
    assert granted(stays).size == 44 * MIB
    gone.done(20 * MIB)
    assert granted(stays) is None
    stays.lost()
    assert stays.granted.size == 64 * MIB


async def test_what_grows_when_it_is_unpacked_takes_that_room():
    room = Room(8, 64 * MIB, MIB, joined=False)
    lane = room.lane()
    granted(lane)
    lane.took(MIB, 50 * MIB, left=0)
    lane.lost()
    assert granted(lane).size == 14 * MIB
    lane.done(50 * MIB)
    assert lane.held == 14 * MIB


async def test_while_it_is_paused_nothing_is_granted():
    room = Room(8, 64 * MIB, MIB, joined=False)
    lane = room.lane()
    room.pause(1)
    waiting = asyncio.create_task(lane.grant())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    async with asyncio.timeout(10):
        assert (await waiting).messages == 8


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_request_that_ends_unused_gives_its_room_back(leaves):
    room = Room(8, 64 * MIB, MIB)
    first, second = room.lane(), room.lane()
    granted(first)
    asking = asyncio.create_task(second.grant())
    await asyncio.sleep(0)
    first.leave() if leaves else first.ended(None, None)
    async with asyncio.timeout(10):
        assert (await asking).size >= 16 * MIB

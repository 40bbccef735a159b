"""The queue: coalescing, one worker a key, growing delays, and nothing lost."""

import asyncio

import pytest

from imaging_operator.queue import LONGEST_DELAY, WorkQueue
from imaging_operator.resources import Key

A, B = Key("Fake", "ns", "a"), Key("Fake", "ns", "b")


class Clock:
    """Time that only moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(clock: Clock) -> WorkQueue:
    return WorkQueue(retry_seconds=5, clock=clock)


async def is_idle(queue: WorkQueue) -> bool:
    """True when no key can be taken now."""
    taking = asyncio.ensure_future(queue.take())
    for _ in range(5):
        await asyncio.sleep(0)
    if taking.done():
        return False
    taking.cancel()
    await asyncio.wait([taking])
    return True


async def test_many_changes_are_one_pass(queue: WorkQueue) -> None:
    for _ in range(100):
        queue.add(A)
    assert queue.depth == 1
    assert await queue.take() == A
    assert await is_idle(queue)


async def test_a_key_is_never_in_two_hands_and_no_change_is_lost(queue: WorkQueue) -> None:
    queue.add(A)
    await queue.take()
    queue.add(A)
    assert await is_idle(queue)
    queue.done(A)
    assert await queue.take() == A
    queue.done(A)
    assert await is_idle(queue)


async def test_the_key_that_waits_the_longest_is_first(queue: WorkQueue, clock: Clock) -> None:
    queue.add(B)
    clock.now = 1
    queue.add(A)
    assert [await queue.take(), await queue.take()] == [B, A]


async def test_delays_grow_up_to_a_limit_and_begin_anew_after_a_success(queue: WorkQueue, clock: Clock) -> None:
    delays = []
    for _ in range(8):
        queue.add(A)
        await queue.take()
        delays.append(queue.failed(A))
    wanted = [min(5 * 2**number, LONGEST_DELAY) for number in range(8)]
    assert all(0.8 * most <= delay <= most for delay, most in zip(delays, wanted, strict=True))
    clock.now += LONGEST_DELAY
    await queue.take()
    queue.done(A)
    queue.add(A)
    await queue.take()
    assert queue.failed(A) <= 5


async def test_a_failed_key_is_due_after_its_delay(queue: WorkQueue, clock: Clock) -> None:
    queue.add(A)
    await queue.take()
    delay = queue.failed(A)
    clock.now = delay / 2
    assert await is_idle(queue)
    clock.now = delay
    queue.add(B)  # wakes who waits: this clock does not
    assert {await queue.take(), await queue.take()} == {A, B}


async def test_a_change_does_not_wait_for_the_delay(queue: WorkQueue) -> None:
    queue.add(A)
    await queue.take()
    queue.failed(A)
    queue.add(A)
    assert await queue.take() == A


async def test_a_delay_passes_by_itself() -> None:
    queue = WorkQueue(retry_seconds=0.02)
    queue.add(A)
    await queue.take()
    queue.failed(A)
    async with asyncio.timeout(30):
        assert await queue.take() == A


async def test_what_is_gone_is_forgotten_unless_something_happened(queue: WorkQueue) -> None:
    queue.add(A)
    await queue.take()
    queue.forget(A)
    assert A not in queue
    queue.add(A)
    await queue.take()
    queue.add(A)
    queue.forget(A)
    assert A in queue
    assert await queue.take() == A


async def test_depth_counts_what_is_due_and_in_nobodys_hands(queue: WorkQueue) -> None:
    queue.add(A)
    queue.add(B, delay=10)
    assert queue.depth == 1
    await queue.take()
    assert queue.depth == 0

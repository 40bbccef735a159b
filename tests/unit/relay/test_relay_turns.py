"""Turns at the handler: one domain alone has all, of several none holds up the others."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from imaging_services.adapters.nats.relay_turns import Turns


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Stores:
    """Stores of one domain, each of which holds its turn until it is let go."""

    def __init__(self, turns: Turns, domain: str | None, count: int) -> None:
        turns.join(domain)
        self.at_work = 0
        self.finish = asyncio.Semaphore(0)
        self.tasks = [asyncio.ensure_future(self._store(turns, domain)) for _ in range(count)]

    async def _store(self, turns: Turns, domain: str | None) -> None:
        async with turns.turn(domain):
            self.at_work += 1
            try:
                await self.finish.acquire()
            finally:
                self.at_work -= 1


@pytest.fixture
async def stores():
    async with AsyncExitStack() as stack:

        def make(turns, domain, count=100):
            made = Stores(turns, domain, count)
            stack.push_async_callback(asyncio.gather, *made.tasks, return_exceptions=True)
            stack.callback(lambda: [task.cancel() for task in made.tasks])
            return made

        yield make


async def test_a_domain_alone_has_all_turns(stores):
    own = stores(Turns(8), None)
    await settled()
    assert own.at_work == 8


async def test_of_several_domains_none_takes_what_the_others_need(stores):
    turns = Turns(8)
    turns.join(None)
    slow = stores(turns, "slow")
    await settled()
    assert slow.at_work == 4
    other = stores(turns, "other")
    await settled()
    assert (slow.at_work, other.at_work) == (4, 2)
    own = stores(turns, None, 3)
    await settled()
    assert own.at_work == 1
    for _ in range(3):
        own.finish.release()
        await settled()
    assert all(task.done() for task in own.tasks)


async def test_whoever_has_fewest_comes_next(stores):
    turns = Turns(1)
    turns.join(None)
    busy = stores(turns, "busy")
    await settled()
    own = stores(turns, None, 2)
    for at_work in ((1, 0), (0, 1), (1, 0), (0, 1)):  # by turns
        (busy if busy.at_work else own).finish.release()
        await settled()
        assert (busy.at_work, own.at_work) == at_work


async def test_a_cancelled_wait_holds_nothing(stores):
    turns = Turns(1)
    first, second = stores(turns, None, 2), stores(turns, None, 1)
    await settled()
    first.tasks[1].cancel()
    await settled()
    first.finish.release()  # its turn would have been the next
    await settled()
    assert (first.at_work, second.at_work) == (0, 1)
    third = stores(turns, None, 1)
    await settled()
    second.finish.release()
    second.tasks[0].cancel()
    third.tasks[0].cancel()
    await settled()
    last = stores(turns, None, 1)
    await settled()
    assert last.at_work == 1

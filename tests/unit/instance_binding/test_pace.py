"""Limits of a target."""

import asyncio

from imaging_services.domain.pace import Pace


async def test_concurrency() -> None:
    pace, at_once, most = Pace(3), 0, 0

    async def work() -> None:
        nonlocal at_once, most
        async with pace.turn():
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.005)
            at_once -= 1

    await asyncio.gather(*(work() for _ in range(20)))
    assert most == 3


async def test_rate() -> None:
    pace, starts = Pace(100, rate=50), []

    async def work() -> None:
        async with pace.turn():
            starts.append(asyncio.get_running_loop().time())

    await asyncio.gather(*(work() for _ in range(11)))
    assert starts[-1] - starts[0] >= 0.19


async def test_a_cancelled_wait_gives_its_place_back() -> None:
    pace = Pace(1)
    async with pace.turn():
        waiting = asyncio.ensure_future(pace.turn().__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
    async with asyncio.timeout(30), pace.turn():
        pass

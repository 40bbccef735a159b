"""Whose turn it is when a hand becomes free."""

import asyncio

import pytest

from imaging_services.adapters.nats.hands import Hands


async def _wait(hands: Hands, name: str, got: list[str], *, urgent: bool = False) -> None:
    async with hands.hand(urgent=urgent):
        got.append(name)
        await asyncio.sleep(0)


async def test_a_free_hand_takes_urgent_ones_first_and_each_kind_in_order() -> None:
    hands, got = Hands(1), list[str]()
    async with asyncio.TaskGroup() as tasks, hands.hand(urgent=False) as waited:
        assert not waited
        for name, urgent in [("a", False), ("b", False), ("c", True), ("d", True)]:
            tasks.create_task(_wait(hands, name, got, urgent=urgent))
        await asyncio.sleep(0)
        assert got == []
    assert got == ["c", "d", "a", "b"]


async def test_the_others_do_not_wait_for_ever_behind_urgent_ones() -> None:
    hands, got = Hands(1), list[str]()
    async with asyncio.TaskGroup() as tasks, hands.hand(urgent=False):
        for number in range(10):
            tasks.create_task(_wait(hands, "urgent", got, urgent=True))
            tasks.create_task(_wait(hands, f"{number}", got))
        await asyncio.sleep(0)
    assert got == [*["urgent"] * 4, "0", *["urgent"] * 4, "1", "urgent", "urgent", *map(str, range(2, 10))]


async def test_who_is_cancelled_while_waiting_or_just_when_it_is_its_turn_takes_no_hand_away() -> None:
    hands, got = Hands(1), list[str]()
    async with hands.hand(urgent=False):
        gone = asyncio.create_task(_wait(hands, "gone", got))
        late = asyncio.create_task(_wait(hands, "late", got, urgent=True))
        next_one = asyncio.create_task(_wait(hands, "next", got))
        await asyncio.sleep(0)
        gone.cancel()
    late.cancel()  # the hand is its own already, but it has not run yet
    for task in (gone, late):
        with pytest.raises(asyncio.CancelledError):
            await task
    await next_one
    assert got == ["next"]

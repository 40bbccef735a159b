"""A cancellation that comes together with the answer is not lost (it was, in Python 3.11's ``asyncio.wait_for``)."""

import asyncio

import pytest

from imaging_services.adapters.nats.cancellation import mend_wait_for, wait_for


async def test_a_waiting_task_is_cancelled_though_its_answer_has_just_come() -> None:
    mend_wait_for()
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(asyncio.wait_for(answer, 10))
    await asyncio.sleep(0)
    answer.set_result("here")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def _soon(result: str) -> str:
    await asyncio.sleep(0)
    return result


@pytest.mark.parametrize("timeout", [None, 10])
async def test_what_comes_in_time_is_given(timeout: float | None) -> None:
    assert await wait_for(_soon("here"), timeout) == "here"


async def test_what_does_not_come_in_time_is_cancelled() -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        await wait_for(answer, 0.01)
    assert answer.cancelled()


async def test_without_time_only_what_is_there_already_is_given() -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    answer.set_result("here")
    assert await wait_for(answer, 0) == "here"
    with pytest.raises(TimeoutError):
        await wait_for(_soon("late"), 0)

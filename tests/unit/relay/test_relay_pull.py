"""Silence of a consumer: a line that is busy is left alone, requests that are lost are made again."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from nats.aio.msg import Msg

from imaging_services.adapters.nats import relay_pull
from imaging_services.adapters.nats.relay_pull import Pull
from imaging_services.adapters.nats.relay_room import Room
from imaging_services.domain.errors import BackendUnavailable

NEXT, INFO = "$JS.north.API.CONSUMER.MSG.NEXT.s.c", "$JS.north.API.CONSUMER.INFO.s.c"
ACK = "$JS.ACK.s.c.1.1.1.1700000000000000000.0"


class Server:
    """What the client asks for, and the way to its inbox."""

    def __init__(self) -> None:
        self.is_closed, self.stats, self.asked = False, {"reconnects": 0}, []

    def new_inbox(self):
        return "_INBOX.1"

    async def subscribe(self, subject, cb, **limits):
        self.say = cb
        return SimpleNamespace(unsubscribe=lambda: asyncio.sleep(0))

    async def publish(self, subject, payload, *, reply):
        assert reply == "_INBOX.1"
        self.asked.append(subject)

    async def answer(self, payload=b"", reply="", headers=None):
        await self.say(Msg(self, subject="_INBOX.1", reply=reply, data=payload, headers=headers))


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(relay_pull, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(relay_pull, "_LOOK", 0.001)
    return clock


@pytest.fixture
async def pulling(clock):
    """A server that is silent, messages that came, and the task that waits for them."""
    server, came = Server(), []
    lane = Room(8, 2**20, 2**16, joined=False).lane()
    pull = Pull(server, NEXT, lane, expires=6, patience=60)

    async def run():
        async for message in pull.messages():
            came.append(message)

    task = asyncio.create_task(run())
    await until(lambda: server.asked == [NEXT])
    yield server, came, task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


async def test_silence_is_asked_about_and_a_busy_line_is_not_asked_for_more(clock, pulling):
    server, came, task = pulling
    for _ in range(5):  # 40 s
        clock.now += 8
        count = len(server.asked)
        await until(lambda count=count: len(server.asked) > count)
    assert server.asked == [NEXT] + 5 * [INFO]
    await server.answer(b"large", ACK)
    for _ in range(5):
        await server.answer(b"{}")  # they come behind it
    await until(lambda: came)
    clock.now += 6
    await asyncio.sleep(0.02)
    assert NEXT not in server.asked[1:]
    assert not task.done()


async def test_a_sign_of_life_alone_means_that_requests_are_lost(clock, pulling):
    server, _, _ = pulling
    clock.now += 8
    await until(lambda: server.asked == [NEXT, INFO])
    await server.answer(b"{}")
    await until(lambda: server.asked == [NEXT, INFO, NEXT])


async def test_a_new_connection_is_asked_at_once(pulling):
    server, _, _ = pulling
    server.stats["reconnects"] = 1
    await until(lambda: server.asked == [NEXT, NEXT])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"payload": json.dumps({"error": {"description": "consumer not found"}}).encode()}, "consumer not found"),
        ({"headers": {"Status": "503"}}, "503"),
        (None, "silent"),
    ],
    ids=["error", "no responders", "nothing"],
)
async def test_a_consumer_that_is_gone(clock, pulling, answer, said):
    server, _, task = pulling
    clock.now += 8
    await until(lambda: server.asked == [NEXT, INFO])
    if answer is None:
        clock.now += 60
    else:
        await server.answer(**answer)
    with pytest.raises(BackendUnavailable, match=said):
        async with asyncio.timeout(30):
            await asyncio.shield(task)

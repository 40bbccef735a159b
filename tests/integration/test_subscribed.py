"""Who has subscribed is heard of at once: nats-py's own flush() overtakes the subscription."""

import uuid

from nats.aio.msg import Msg

from imaging_services.adapters.nats.connection import connect, reach_server
from imaging_services.adapters.nats.settings import NatsSettings
from support.servers import Nats


async def answer(message: Msg) -> None:
    await message.respond(b"here")


async def test_a_subscription_that_the_server_knows_has_nobody_asking_in_vain(nats_server: Nats) -> None:
    settings = NatsSettings(url=nats_server.url, subject_root="subscribed")
    async with connect(settings) as asking, connect(settings) as answering:
        for _ in range(100):
            subject = f"subscribed.{uuid.uuid4().hex}"
            subscription = await answering.subscribe(subject, cb=answer)
            await reach_server(answering)
            assert (await asking.request(subject, b"", timeout=30)).data == b"here"
            await subscription.unsubscribe()

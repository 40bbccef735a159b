"""A receiver to be killed: writes the SOP Instance UID to a file when it has stored an instance, slowly; with a delay
in seconds also before it, as ``begun``."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.relay import Remembering, nats_relay, relay_settings


async def main(url: str, root: str, log: str, delay: str = "0") -> None:
    class Appending(Remembering):
        async def store(self, message, data):
            if self.delay:
                await relay.client().flush()  # so that the asking side knows by now who has taken it
                await relay.client().flush()
                Path(log).write_text("begun")
            answer = await super().store(message, data)
            await asyncio.sleep(0.02 * len(self.stored))
            with Path(log).open("a") as file:
                file.write(message.call.command.sop_instance_uid + "\n")
            return answer

    async with nats_relay(relay_settings(url, "B", root, ack_wait_seconds=2)) as relay:
        await relay.listen(Appending(delay=float(delay)))


asyncio.run(main(*sys.argv[1:]))

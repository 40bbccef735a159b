"""A link with a delay and a rate: a TCP relay in a process of its own.

Every connection through it shares the rate, each direction has its own; a new connection waits one round trip longer,
as TCP's handshake does. Not a network: nothing is lost, and there is no slow start.
"""

import argparse
import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BLOCK = 16 * 1024
_UNDER_WAY = 256  # blocks of one direction of a connection that have left and not arrived


@contextmanager
def slow_link(port: int, *, rtt: float, rate: float, listen: int = 0) -> Iterator[int]:
    """Relay to 127.0.0.1:``port``; ``rtt`` in seconds, ``rate`` in bytes a second. Gives the port to connect to, which
    is ``listen`` or a free one."""
    command = [sys.executable, str(Path(__file__)), str(port), str(rtt), str(rate), str(listen)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(10)


class Direction:
    """One way of the link: when what is sent now arrives."""

    def __init__(self, delay: float, rate: float) -> None:
        self._delay, self._rate, self._free = delay, rate, 0.0

    def arrival(self, size: int) -> float:
        """Queue ``size`` bytes behind all others; returns the loop's time of their arrival."""
        self._free = max(self._free, asyncio.get_running_loop().time()) + size / self._rate
        return self._free + self._delay


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Direction, late: float) -> None:
    loop = asyncio.get_running_loop()
    blocks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_UNDER_WAY)

    async def send() -> None:
        while True:
            block = await reader.read(_BLOCK)
            await blocks.put((way.arrival(len(block)) + late, block))
            if not block:
                return

    sending = asyncio.create_task(send())
    try:
        while True:
            arrival, block = await blocks.get()
            await asyncio.sleep(max(0.0, arrival - loop.time()))
            if not block:
                break
            writer.write(block)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _relay(port: int, rtt: float, rate: float, listen: int) -> None:
    there, back = Direction(rtt / 2, rate), Direction(rtt / 2, rate)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_carry(reader, far_writer, there, rtt), _carry(far_reader, writer, back, 0.0))
        far_writer.close()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", listen)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("rtt", type=float)
    parser.add_argument("rate", type=float)
    parser.add_argument("listen", type=int)
    given = parser.parse_args()
    asyncio.run(_relay(given.port, given.rtt, given.rate, given.listen))

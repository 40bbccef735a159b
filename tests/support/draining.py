"""Watching an HTTP service stop: idle connections, a request under way, and whoever comes too late."""

import asyncio
import contextlib
from dataclasses import dataclass

HOST = "127.0.0.2"
"""Reached only by services that listen on all addresses, as they do in pods."""
_SECONDS = 60


@dataclass(frozen=True)
class Answer:
    """An HTTP/1.1 answer as received."""

    status: int
    head: str
    body: bytes


class Connection:
    """One HTTP/1.1 connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, method: str, path: str, **headers: object) -> None:
        """Send the head of a request."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        await self.writer.drain()

    async def head(self) -> tuple[int, str]:
        """Status and head of the next answer."""
        async with asyncio.timeout(_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        return int(head.split()[1]), head

    async def answer(self) -> Answer:
        """The next answer, whose length its head says."""
        status, head = await self.head()
        lengths = [int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length:")]
        async with asyncio.timeout(_SECONDS):
            body = await self.reader.readexactly(lengths[0] if lengths else 0)
        return Answer(status, head, body)

    async def closed(self) -> None:
        """Wait until the service has closed the connection; what it sends instead fails the test."""
        async with asyncio.timeout(_SECONDS):
            assert await self.reader.read() == b""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def connected(port: int) -> Connection:
    """A connection to the service."""
    return Connection(*await asyncio.open_connection(HOST, port))


async def an_idle_connection(port: int) -> Connection:
    """A connection that has been used once and is kept alive."""
    connection = await connected(port)
    await connection.ask("GET", "/nothing-here")
    answer = await connection.answer()
    assert answer.status == 404
    assert "connection: close" not in answer.head
    return connection


async def upload_begun(port: int, path: str, body: bytes, **headers: object) -> Connection:
    """A POST whose first half has been sent and which the application is reading."""
    connection = await connected(port)
    await connection.ask("POST", path, Content_Length=len(body), Expect="100-continue", **headers)
    status, _ = await connection.head()
    assert status == 100
    connection.writer.write(body[: len(body) // 2])
    await connection.writer.drain()
    return connection


async def upload_ended(connection: Connection, body: bytes) -> Answer:
    """Send the second half; the answer says that the connection ends, and it does."""
    connection.writer.write(body[len(body) // 2 :])
    await connection.writer.drain()
    answer = await connection.answer()
    assert "connection: close" in answer.head
    await connection.closed()
    return answer


async def until_refused(port: int) -> None:
    """Wait until nobody listens any more."""
    async with asyncio.timeout(_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection(HOST, port)
            except ConnectionRefusedError:
                return
            except ConnectionResetError:  # taken into the queue of a listener that was closed just then
                continue
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            await asyncio.sleep(0.02)

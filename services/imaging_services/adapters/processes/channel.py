"""A pair of sockets between a worker process and its parent: the parent asks, the worker answers.

A question is a number (4 bytes) and a letter, an answer the same number, a length (4 bytes) and so many bytes. The end
of the stream says that the other process is gone, however it went.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from imaging_services.domain.errors import BackendUnavailable, DeadlineExceeded

STATE, METRICS = b"s", b"m"
READY = b"ready"
"""The answer to ``STATE`` of a worker that takes work."""

_NUMBER, _DESCRIPTOR = "IMAGING_WORKER", "IMAGING_WORKER_CHANNEL"
_QUESTION, _ANSWER = struct.Struct(">Ic"), struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class Membership:
    """What a worker process was given by its parent."""

    number: int
    """From 1 on; a worker that is started again has the number of the one before."""
    channel: socket.socket


def variables(number: int, end: socket.socket) -> dict[str, str]:
    """Environment variables that give a child its ``Membership``; it must inherit the socket."""
    return {_NUMBER: str(number), _DESCRIPTOR: str(end.fileno())}


def inherited() -> Membership | None:
    """What this process got from its parent, taken out of the environment; None when it is nobody's worker."""
    number, descriptor = os.environ.pop(_NUMBER, ""), os.environ.pop(_DESCRIPTOR, "")
    if not number or not descriptor:
        return None
    os.set_inheritable(int(descriptor), False)
    return Membership(int(number), socket.socket(fileno=int(descriptor)))


async def answer(channel: socket.socket, answers: dict[bytes, Callable[[], bytes]]) -> None:
    """The worker's side: answer each question until the parent is gone."""
    reader, writer = await asyncio.open_unix_connection(sock=channel)
    try:
        while True:
            number, letter = _QUESTION.unpack(await reader.readexactly(_QUESTION.size))
            content = answers[letter]()
            writer.write(_ANSWER.pack(number, len(content)) + content)
            await writer.drain()
    except (asyncio.IncompleteReadError, OSError):
        return
    finally:
        writer.close()


class Channel:
    """The parent's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._asked = 0
        self._head: tuple[int, int] | None = None
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, end: socket.socket) -> "Channel":
        """On the parent's end of the pair."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    async def ask(self, letter: bytes, seconds: float) -> bytes:
        """The worker's answer. Raises ``DeadlineExceeded`` when it does not come in time, ``BackendUnavailable`` when
        the worker is gone."""
        try:
            async with asyncio.timeout(seconds), self._turn:
                if self._reader.at_eof():
                    raise BackendUnavailable("the worker is gone")
                self._asked += 1
                self._writer.write(_QUESTION.pack(self._asked, letter))
                await self._writer.drain()
                return await self._answer(self._asked)
        except TimeoutError:
            raise DeadlineExceeded(f"the worker did not answer within {seconds:g} s") from None
        except (asyncio.IncompleteReadError, OSError) as error:
            raise BackendUnavailable("the worker is gone") from error

    def close(self) -> None:
        """The worker, should it still run, sees that nobody asks any more, and ends."""
        self._writer.close()

    async def _answer(self, wanted: int) -> bytes:
        """Answers to questions that were given up come first, and are passed over; one may be half read."""
        while True:
            if self._head is None:
                self._head = _ANSWER.unpack(await self._reader.readexactly(_ANSWER.size))
            number, length = self._head
            content = await self._reader.readexactly(length)
            self._head = None
            if number == wanted:
                return content

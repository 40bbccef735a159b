"""TCP connections with faults that a test turns on and off: slow, cut, refused, swallowed, answered by another."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_BLOCK = 64 * 1024
_WAITING = 64  # blocks on their way in one direction: what the delay of a long line holds


@dataclass(eq=False)
class _Line:
    """One connection through the wire. ``dead``: open, and nothing passes any more, not even its end."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter | None = None
    dead: bool = False

    async def close(self) -> None:
        """Let go what is written."""
        for end in (self.near, self.far):
            if end is not None:
                end.close()
                with contextlib.suppress(OSError, TimeoutError):
                    await asyncio.wait_for(end.wait_closed(), 5)

    def abort(self) -> None:
        for end in (self.near, self.far):
            if end is not None:
                end.transport.abort()


class Wire:
    """Forwards 127.0.0.1:``port`` to whichever port ``target`` says when a connection is made."""

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._socket.getsockname()[1])
        self._lines: set[_Line] = set()
        self._delay = 0.0
        self._swallows = self._refuses = False
        self._bytes_left: int | None = None
        self._elsewhere: int | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    # Faults. ``mend`` ends those that last; what was cut stays cut, and what was swallowed stays silent.

    def slow(self, seconds: float) -> None:
        """Everything takes so much longer, in either direction."""
        self._delay = seconds

    def cut(self) -> None:
        """Reset every open connection; new ones work."""
        self._call(self._cut)

    def refuse(self) -> None:
        """Reset every open connection, and each new one."""
        self._refuses = True
        self._call(self._cut)

    def swallow(self) -> None:
        """Open connections go silent for good, as behind a firewall that forgot them; so do new ones for now."""
        self._swallows = True
        self._call(self._silence)

    def lead_to(self, port: int) -> None:
        """Reset every open connection; new ones go to another server of this machine."""
        self._elsewhere = port
        self._call(self._cut)

    def cut_after(self, count: int) -> None:
        """Reset every connection as soon as so many more bytes have gone to the server, wherever that is."""
        self._bytes_left = count

    def mend(self) -> None:
        """New connections work as if nothing had been."""
        self._delay, self._swallows, self._refuses, self._bytes_left = 0.0, False, False, None
        if self._elsewhere is not None:
            self._elsewhere = None
            self._call(self._cut)

    @property
    def has_cut(self) -> bool:
        """True once ``cut_after`` has happened."""
        return self._bytes_left is not None and self._bytes_left <= 0

    def _call(self, what: Callable[[], None]) -> None:
        done = threading.Event()

        def call() -> None:
            what()
            done.set()

        self._loop.call_soon_threadsafe(call)
        assert done.wait(10)

    def _cut(self) -> None:
        for line in list(self._lines):
            line.abort()

    def _silence(self) -> None:
        for line in self._lines:
            line.dead = True

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, sock=self._socket))
        self._loop.run_forever()
        server.close()
        self._cut()
        for task in (tasks := asyncio.all_tasks(self._loop)):
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # the end of the wire
            await self._serve(reader, writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = _Line(writer, dead=self._swallows)
        self._lines.add(line)
        try:
            if self._refuses:
                return
            with contextlib.suppress(OSError):
                await self._forward(line, reader)
            while line.dead:
                await asyncio.sleep(0.5)
            await line.close()
        finally:
            line.abort()
            self._lines.discard(line)

    async def _forward(self, line: _Line, near: asyncio.StreamReader) -> None:
        if line.dead:
            return
        far, line.far = await asyncio.open_connection("127.0.0.1", self._elsewhere or self._target())
        up, down = self._pump(line, near, line.far, counted=True), self._pump(line, far, line.near, counted=False)
        pumps = [asyncio.ensure_future(up), asyncio.ensure_future(down)]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, line: _Line, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, counted: bool
    ) -> None:
        """Read into a queue that a second task empties when each block is due."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_WAITING)
        writing = asyncio.ensure_future(self._write(line, waiting, sink))
        try:
            while True:
                data = await source.read(_BLOCK)
                if line.dead:
                    return
                if counted and self._bytes_left is not None and data:
                    self._bytes_left -= len(data)
                    if self._bytes_left <= 0:
                        self._cut()
                        return
                while waiting.full() and not writing.done():
                    await asyncio.sleep(0.005)
                if not writing.done():
                    waiting.put_nowait((self._loop.time() + self._delay, data))
                if not data or writing.done():
                    await writing
                    return
        finally:
            writing.cancel()

    async def _write(
        self, line: _Line, waiting: "asyncio.Queue[tuple[float, bytes]]", sink: asyncio.StreamWriter
    ) -> None:
        while True:
            due, data = await waiting.get()
            if (late := due - self._loop.time()) > 0:
                await asyncio.sleep(late)
            if line.dead or not data:
                return
            sink.write(data)
            await sink.drain()

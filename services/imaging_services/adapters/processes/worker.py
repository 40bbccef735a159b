"""One worker process."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Mapping, Sequence

from imaging_services.adapters.processes.channel import METRICS, READY, STATE, Channel, variables
from imaging_services.domain.errors import BackendUnavailable


class Worker:
    """A child process with a channel; made by ``start``."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, channel: Channel) -> None:
        self.number = number
        self._process, self._channel = process, channel

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    async def ready(self, seconds: float) -> bool:
        """It takes work. False when it does not yet, or no more, or is gone. Raises ``DeadlineExceeded``."""
        try:
            return await self._channel.ask(STATE, seconds) == READY
        except BackendUnavailable:
            return False

    async def metrics(self, seconds: float) -> bytes:
        """What it exposes. Raises ``BackendUnavailable``, ``DeadlineExceeded``."""
        return await self._channel.ask(METRICS, seconds)

    def send(self, signum: signal.Signals) -> None:
        """Send a signal; one that has ended gets none."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signum)

    async def ended(self) -> int:
        """Wait for its end: the exit code, negative for a signal."""
        code = await self._process.wait()
        self._channel.close()
        return code


async def start(number: int, command: Sequence[str], environment: Mapping[str, str]) -> Worker:
    """Start it. Its output goes where ours goes; Ctrl-C in a terminal reaches the parent alone, which tells it."""
    ours, its = socket.socketpair()
    with its:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={**os.environ, **environment, **variables(number, its)},
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(its.fileno(),),
            start_new_session=True,
        )
    return Worker(number, process, await Channel.open(ours))


def how(code: int) -> str:
    """How a process ended, in words."""
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

"""What ends, stops or starves a process of a running stack."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

from support.audit import until
from support.stack import Stack
from support.webhook import Receiver, Reply, Request

BACK_SECONDS = 60


def kill(stack: Stack, *names: str, signum: signal.Signals = signal.SIGKILL) -> None:
    """Send the signal, and wait until the supervisor says that they take work again."""
    before = {name: stack.ready["pids"][name] for name in names}
    for pid in before.values():
        os.kill(pid, signum)
    until_again(stack, before)


def until_again(stack: Stack, before: dict[str, int]) -> None:
    """Wait until other processes have taken the place of these."""

    def again() -> bool:
        now = stack.ready["pids"]
        return all(now.get(name, pid) != pid for name, pid in before.items())

    until(again, BACK_SECONDS, f"{sorted(before)} run again")


@contextmanager
def hanging(pid: int) -> Iterator[None]:
    """A process, with its children, that takes connections and does not answer."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


class SlowDown(Receiver):
    """An S3 front that asks everybody to come back later."""

    _BODY = (
        b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'
    )

    def answer(self, request: Request) -> Reply:
        return Reply(503, self._BODY, {"Content-Type": "application/xml"})

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rsplit(":", 1)[1].rstrip("/"))

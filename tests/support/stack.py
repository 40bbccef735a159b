"""The whole product as a user starts it: ``imaging up`` with a ready file, as a child process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 180
STOP_SECONDS = 60


@dataclass
class Stack:
    """A running ``imaging up``."""

    process: subprocess.Popen[bytes]
    ready_file: Path
    log: Path

    @property
    def ready(self) -> dict[str, Any]:
        """The ready file as it is now (it is rewritten when a child is restarted)."""
        return json.loads(self.ready_file.read_text())

    def url(self, name: str) -> str:
        """A base URL of the ready file without trailing slash."""
        return str(self.ready[name]).rstrip("/")

    def stop(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_SECONDS)


@contextmanager
def imaging_up(
    folder: Path,
    *options: str,
    environment: dict[str, str] | None = None,
    program: Sequence[str] = (str(Path(sys.executable).with_name("imaging")),),
) -> Iterator[Stack]:
    """Start ``imaging up --ports auto`` on a data folder; wait until it is ready; stop it at the end."""
    ready_file, log = folder / "ready.json", folder / "up.log"
    ready_file.unlink(missing_ok=True)
    command = [*program, "up", "--ports", "auto"]
    command += ["--data-dir", str(folder / "data"), "--ready-file", str(ready_file), *options]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **(environment or {})}
        )
    stack = Stack(process, ready_file, log)
    try:
        _wait_until_ready(stack)
        yield stack
    finally:
        if process.poll() is None:
            try:
                stack.stop()
            finally:
                process.kill()
                process.wait()


def _wait_until_ready(stack: Stack) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not stack.ready_file.exists():
        if stack.process.poll() is not None or time.monotonic() > deadline:
            tail = stack.log.read_text(errors="replace")[-4000:]
            raise AssertionError(f"imaging up did not become ready (exit code {stack.process.poll()}):\n{tail}")
        time.sleep(0.1)

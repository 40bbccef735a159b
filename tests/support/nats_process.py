"""A NATS server that a test may kill and start again on the same port and data."""

import contextlib
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from support.ports import a_free_port


class NatsProcess:
    """A server of the test's own, on 127.0.0.1; ``more`` is added to its configuration, ``domain`` is JetStream's."""

    def __init__(
        self, directory: Path, max_payload: int = 8 * 1024 * 1024, more: str = "", domain: str | None = None
    ) -> None:
        self.port = a_free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._config = directory / "nats.conf"
        self._config.write_text(
            f"listen: 127.0.0.1:{self.port}\nmax_payload: {max_payload}\n"
            f'jetstream {{ store_dir: "{directory / "js"}", sync_interval: always'
            f"{f', domain: {domain}' if domain else ''} }}\n{more}"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.kill()

    def start(self) -> None:
        """Start and wait until it listens."""
        program = Path(sys.executable).parent / "nats-server"
        self._process = subprocess.Popen([program, "-c", self._config], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise RuntimeError("nats-server does not listen")

    def kill(self) -> None:
        """As a power cut would: SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

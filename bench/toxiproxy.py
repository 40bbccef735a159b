"""Toxiproxy as a WAN: each connection through a link is delayed and has the link's rate, in either direction.

Not a network: nothing is lost, and there is no slow start; the rate that it really gives is measured with plain TCP.
"""

import json
import os
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socket import create_connection, create_server
from typing import Any

from imaging_services.local.ports import accepts, free_ports

VERSION = "v2.12.0"
_PACKAGE = f"github.com/Shopify/toxiproxy/v2/cmd/server@{VERSION}"
_FOLDER = Path(__file__).parents[1] / "build" / "toxiproxy"


class Toxiproxy:
    """A running server. Made by ``toxiproxy``."""

    def __init__(self, port: int) -> None:
        self._api = f"http://127.0.0.1:{port}"

    def link(self, target: int, *, rtt: float, rate: float) -> int:
        """A port that leads to 127.0.0.1:``target``; ``rtt`` in seconds, ``rate`` in bits a second."""
        (port,) = free_ports(1)
        name = f"to-{target}-{port}"
        self._post("/proxies", {"name": name, "listen": f"127.0.0.1:{port}", "upstream": f"127.0.0.1:{target}"})
        toxics = {"latency": {"latency": round(rtt * 500), "jitter": 0}, "bandwidth": {"rate": round(rate / 8000)}}
        for stream in ("upstream", "downstream"):
            for kind, attributes in toxics.items():
                toxic = {"name": f"{kind}-{stream}", "type": kind, "stream": stream, "attributes": attributes}
                self._post(f"/proxies/{name}/toxics", toxic)
        return port

    def _post(self, path: str, body: dict[str, Any]) -> None:
        request = urllib.request.Request(f"{self._api}{path}", json.dumps(body).encode())
        urllib.request.urlopen(request, timeout=10).close()


@contextmanager
def toxiproxy(log: Path) -> Iterator[Toxiproxy]:
    """A server for the length of the block; built by Go when it is not there."""
    program = _FOLDER / "server"
    if not program.exists():
        environment = {**os.environ, "GOBIN": str(_FOLDER), "GOFLAGS": "-mod=mod"}
        subprocess.run(["go", "install", _PACKAGE], env=environment, check=True, cwd=Path(__file__).parent)
    (port,) = free_ports(1)
    with log.open("wb") as output:
        process = subprocess.Popen([program, "-host", "127.0.0.1", "-port", str(port)], stdout=output, stderr=output)
    try:
        while not accepts(port):
            time.sleep(0.02)
        yield Toxiproxy(port)
    finally:
        process.terminate()
        process.wait(10)


def plain_tcp(server: Toxiproxy, size: int, *, rtt: float, rate: float) -> float:
    """Seconds until ``size`` bytes, sent without pause, are there and one byte has come back: what the link gives."""
    with create_server(("127.0.0.1", 0)) as listener:

        def take() -> None:
            with listener.accept()[0] as connection:
                left = size
                while left > 0:
                    left -= len(connection.recv(1 << 20))
                connection.sendall(b".")

        taking = threading.Thread(target=take, daemon=True)
        taking.start()
        with create_connection(("127.0.0.1", server.link(listener.getsockname()[1], rtt=rtt, rate=rate))) as connection:
            start = time.perf_counter()
            connection.sendall(bytes(size))
            connection.recv(1)
            return time.perf_counter() - start

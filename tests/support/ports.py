"""A TCP port that was free a moment ago."""

import socket


def a_free_port() -> int:
    """A port on 127.0.0.1 that the kernel gave and that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

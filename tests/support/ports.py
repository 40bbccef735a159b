"""A TCP port for a server of a test."""

from imaging_services.local.ports import free_ports


def a_free_port() -> int:
    """A port on 127.0.0.1 that nobody listens on, and that no other test is given soon."""
    return free_ports(1)[0]

"""The port that several processes listen on."""

import socket

from imaging_services.domain.errors import SettingsError


def reserve(host: str, port: int) -> socket.socket:
    """A socket that holds the port, which may be 0 for any free one, for processes that bind it with SO_REUSEPORT.

    It does not listen, so no connection comes to it, and one that comes while no process listens is refused. Raises
    ``SettingsError`` when the port cannot be had; without this, a second service started on it would share it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    handle = socket.socket(family, socket.SOCK_STREAM)
    try:
        with socket.socket(family, socket.SOCK_STREAM) as alone:
            alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            alone.bind((host, port))
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        handle.bind((host, port))
    except OSError as error:
        handle.close()
        raise SettingsError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None
    return handle

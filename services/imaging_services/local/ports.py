"""TCP ports of this machine: free ones from the kernel, and whether a chosen one is taken."""

import contextlib
import socket
from collections.abc import Mapping, Sequence

from imaging_services.domain.errors import SettingsError

LOOPBACK = "127.0.0.1"


def free_ports(count: int, host: str = LOOPBACK) -> list[int]:
    """``count`` different ports that nobody listens on now.

    The sockets are held until all are chosen, so that one call never returns a port twice. Another program may
    still take one before it is used: whoever starts a server must be ready to see that start fail.
    """
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind((host, 0))
        return [int(listener.getsockname()[1]) for listener in sockets]


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """True when a server could listen on ``port`` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def accepts(port: int, host: str = LOOPBACK, timeout: float = 1) -> bool:
    """True when something accepts TCP connections on ``port`` within ``timeout`` seconds."""
    try:
        socket.create_connection((host, port), timeout=timeout).close()
    except OSError:
        return False
    return True


def choose_ports(
    names: Sequence[str], wanted: Mapping[str, int], kept: Mapping[str, int], host: str = LOOPBACK
) -> dict[str, int]:
    """A port for each name: the ``wanted`` one, else while it is free the one ``kept`` from the last run, else any.

    Raises ``SettingsError`` naming each wanted port that is taken.
    """
    taken = [f"{wanted[name]} ({name})" for name in names if name in wanted and not is_free(wanted[name], host)]
    if taken:
        what = f"port {taken[0]} is" if len(taken) == 1 else f"ports {', '.join(taken)} are"
        raise SettingsError(f"{what} taken by another program: stop it, or choose free ports with --ports auto")
    chosen = {name: wanted.get(name) or kept.get(name, 0) for name in names}
    fresh = iter(free_ports(len(names), host))
    used = set(wanted.values())
    for name, port in chosen.items():
        if name not in wanted and (port == 0 or port in used or not is_free(port, host)):
            chosen[name] = next(candidate for candidate in fresh if candidate not in used)
        used.add(chosen[name])
    return chosen

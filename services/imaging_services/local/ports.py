"""TCP ports of this machine: free ones, and whether a chosen one is taken."""

import contextlib
import fcntl
import itertools
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence

from imaging_services.domain.errors import BackendUnavailable, SettingsError

LOOPBACK = "127.0.0.1"
FIRST, LAST = 20_000, 29_999
"""Above the well-known ports of the products that it runs, below Linux' ephemeral ports and Kubernetes' node ports."""


def free_ports(count: int, host: str = LOOPBACK) -> list[int]:
    """``count`` different ports that nobody listens on now.

    They lie below the range from which the kernel takes ports for outgoing connections, and are handed out in turn to
    all programs of this user: a port is not given again before the others were. Raises ``BackendUnavailable`` when
    fewer are free.
    """
    with _next_port() as (first, turn):
        ports = list(itertools.islice((port for port in _in_turn(first) if is_free(port, host)), count))
        if len(ports) < count:
            raise BackendUnavailable(f"{host} has no {count} free ports between {FIRST} and {LAST}")
        turn(ports[-1] + 1 if ports else first)
    return ports


def _in_turn(first: int) -> Iterator[int]:
    return itertools.chain(range(first, LAST + 1), range(FIRST, first))


@contextlib.contextmanager
def _next_port() -> Iterator[tuple[int, Callable[[int], None]]]:
    """The port whose turn it is, and a function to say which is next; other programs wait meanwhile. Where no file can
    be kept, the turn begins anywhere."""
    place = os.path.join(tempfile.gettempdir(), f"imaging-ports-{os.getuid()}")
    try:
        file = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        yield _anywhere(), lambda _: None
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        kept = os.pread(file, 16, 0)
        first = int(kept) if kept.strip().isdigit() else _anywhere()
        yield first if FIRST <= first <= LAST else FIRST, lambda port: _write(file, port)
    finally:
        os.close(file)


def _anywhere() -> int:
    return FIRST + os.getpid() * 64 % (LAST - FIRST)


def _write(file: int, port: int) -> None:
    os.pwrite(file, f"{port:<8}".encode(), 0)


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

"""The spool of an edge: what waits there for the far side, and whether there is room for more."""

from dataclasses import dataclass

from imaging_services.domain.errors import OutOfResources

_ROOM_AGAIN = 95  # percent; a sender that tries again soon must not find it full after one instance
LEAST_FREE = 16 * 1024 * 1024
"""Bytes; a server that says nothing on a disk with less will not take an instance."""


@dataclass(frozen=True, slots=True)
class SpoolState:
    """What waits: ``instances``, their ``bytes`` as stored, age of the oldest in seconds (0 when none waits)."""

    instances: int
    bytes: int
    oldest_seconds: float


class SpoolGate:
    """Whether an instance may come in.

    Closed when the spool holds ``limit`` bytes, when less than ``reserve`` bytes of the disk are free, or when the
    server said that it is full; open again when the spool holds 95 % or less of what it may, which is ``limit`` or what
    the disk has for it, whichever is less. A server that meets a full disk stops storing altogether, so the disk must
    never be full.
    """

    def __init__(self, limit: int, reserve: int) -> None:
        self._limit, self._reserve = limit, reserve
        self._used = self._taken = 0
        self._free: int | None = None
        self._why = ""

    def require_room(self) -> None:
        """Raise ``OutOfResources`` with the reason while it is closed."""
        if self._why:
            raise OutOfResources(self._why)

    @property
    def is_open(self) -> bool:
        """An instance may come in."""
        return not self._why

    @property
    def taken(self) -> int:
        """Bytes stored since the last look, to be given to the next one when it begins."""
        return self._taken

    def look(self, used: int, free: int, taken: int = 0) -> None:
        """As the spool and the disk are now, bytes; ``taken`` of those stored since the last look are in it."""
        self._used, self._free = used, free
        self._taken -= taken
        most = min(self._limit, used + free - self._reserve)
        if self._why and 100 * used <= most * _ROOM_AGAIN:
            self._why = ""
        self._judge()

    def look_at_disk(self, free: int) -> None:
        """As only the disk is now, when the server does not say how the spool stands: it may be the full disk that
        silenced it."""
        self._free = free
        self._judge()
        if free < LEAST_FREE:
            self._why = self._why or f"the disk below the spool is full: {free:,} bytes free"

    def took(self, size: int) -> None:
        """Somebody stored so many bytes since the last look."""
        self._taken += size
        self._judge()

    def refused(self) -> None:
        """The server has no room, whatever the last look said."""
        self._why = self._why or "the spool is full: the NATS server has no room"

    def _judge(self) -> None:
        if (used := self._used + self._taken) >= self._limit:
            self._why = f"the spool is full: {used:,} of {self._limit:,} bytes"
        elif self._free is not None and (free := self._free - self._taken) < self._reserve:
            self._why = f"the disk below the spool is full: {max(free, 0):,} bytes free"

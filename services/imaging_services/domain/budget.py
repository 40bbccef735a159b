"""Bytes that a service may hold in memory for all of its requests together."""

from threading import Lock


class ByteBudget:
    """Asked without waiting, so nobody blocks another; from any thread."""

    def __init__(self, limit: int) -> None:
        self._free, self._lock = limit, Lock()

    def try_take(self, amount: int) -> bool:
        """Reserve; False when there is not enough."""
        with self._lock:
            if amount > self._free:
                return False
            self._free -= amount
            return True

    def give_back(self, amount: int) -> None:
        """Return what was reserved."""
        with self._lock:
            self._free += amount

"""Bytes that a service may hold in memory for all of its requests together."""


class ByteBudget:
    """Asked without waiting, so nobody blocks another."""

    def __init__(self, limit: int) -> None:
        self._free = limit

    def try_take(self, amount: int) -> bool:
        """Reserve; False when there is not enough."""
        if amount > self._free:
            return False
        self._free -= amount
        return True

    def give_back(self, amount: int) -> None:
        """Return what was reserved."""
        self._free += amount

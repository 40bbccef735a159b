"""Explicit VR Big Endian values, turned to little endian while they pass (PS3.5 section 7.3)."""


class ByteSwapper:
    """Swaps words of ``size`` bytes in a stream of blocks of any length."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._rest = b""

    def feed(self, block: bytes) -> bytes:
        """The swapped bytes of all words that are complete."""
        block = self._rest + block
        whole = len(block) - len(block) % self._size
        self._rest = block[whole:]
        return swapped(block[:whole], self._size)

    def end(self) -> bytes:
        """An incomplete last word, as it is."""
        rest, self._rest = self._rest, b""
        return rest


def swapped(block: bytes, size: int) -> bytes:
    """Reverse each word of ``size`` bytes; the length is a multiple of it."""
    if size == 1:
        return block
    result = bytearray(len(block))
    for position in range(size):
        result[position::size] = block[size - 1 - position :: size]
    return bytes(result)

"""Items and sub-items of A-ASSOCIATE PDUs (PS3.8 section 9.3.2): a type, a length, a value."""

import struct
from collections.abc import Iterator

from imaging_services.adapters.dimse.pdu import AbortReason, ProtocolViolation

UID_LENGTH = 2
"""Bytes of the lengths within sub-items."""
_ITEM = struct.Struct(">BxH")


class Cursor:
    """Reads a value from its beginning to its end. ``what`` names it in ``ProtocolViolation``."""

    def __init__(self, value: bytes, what: str) -> None:
        self._value, self._what, self._at = value, what, 0

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self._value) - self._at

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > self.left:
            raise invalid(f"{self._what} is cut short")
        self._at += count
        return self._value[self._at - count : self._at]

    def counted(self) -> bytes:
        """A value behind its own length."""
        return self.take(int.from_bytes(self.take(UID_LENGTH), "big"))

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(self.left)


def items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each item. Raises ``ProtocolViolation`` when one does not fit."""
    pos = 0
    while pos < len(data):
        if pos + _ITEM.size > len(data):
            raise invalid("item header is cut short")
        kind, length = _ITEM.unpack_from(data, pos)
        pos += _ITEM.size
        if pos + length > len(data):
            raise invalid(f"item {kind:02X}H of {length} bytes goes beyond its end")
        yield kind, data[pos : pos + length]
        pos += length


def item(kind: int, value: bytes) -> bytes:
    """An item."""
    return _ITEM.pack(kind, len(value)) + value


def uid_text(value: bytes) -> str:
    """A UID. Raises ``ProtocolViolation``."""
    # peers pad with NUL or space although PS3.8 annex F says they shall not
    try:
        return value.strip(b"\0 ").decode("ascii")
    except UnicodeDecodeError:
        raise invalid("UID is not ASCII") from None


def text(value: bytes) -> str:
    """A name."""
    return value.decode("latin-1").strip("\0 ")


def invalid(why: str) -> ProtocolViolation:
    """What is raised for an item that is not as PS3.8 has it."""
    return ProtocolViolation(AbortReason.INVALID_PARAMETER, why)

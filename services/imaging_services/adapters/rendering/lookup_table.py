"""Lookup tables: Modality and VOI LUTs, palettes and segmented palettes (PS3.3 sections C.11.1, C.11.2, C.7.9)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import Dataset

from imaging_services.adapters.rendering.frame_attributes import numbers
from imaging_services.domain.errors import PermanentError

Array = np.ndarray[Any, Any]

_MOST_ENTRIES = 65536


@dataclass(frozen=True, slots=True)
class LookupTable:
    """``entries`` for input values from ``first`` on; values outside get the nearest entry. ``bits``: of an entry."""

    entries: Array
    first: int
    bits: int

    def apply(self, values: Array) -> Array:
        """The entry for each value."""
        places = np.clip(np.asarray(values, np.float64) - self.first, 0, len(self.entries) - 1)
        found: Array = self.entries[places.astype(np.intp)]
        return found

    def as_8_bit(self) -> Array:
        """The entries in the range of 0 to 255."""
        top = (1 << self.bits) - 1
        levels: Array = np.rint(np.minimum(self.entries, top) * (255.0 / top))
        return levels.astype(np.uint8)


def read_table(item: Dataset, *, little_endian: bool, signed: bool) -> LookupTable | None:
    """LUT Descriptor and LUT Data of an item of a Modality or VOI LUT Sequence; None when they are not complete."""
    descriptor = _descriptor(item, "LUTDescriptor", signed=signed)
    if descriptor is None:
        return None
    entries, first, bits = descriptor
    data = _words(item, "LUTData", entries, bits, little_endian=little_endian)
    if not len(data):
        return None
    # The number of bits is often wrong (PS3.3 section C.11.1.1 has 16 for data of 12): the data itself says more.
    return LookupTable(data, first, max(bits, int(data.max()).bit_length()) if bits < 16 else bits)


def read_palette(header: Dataset, colour: str, *, little_endian: bool, signed: bool) -> LookupTable:
    """One of the ``Red``, ``Green`` and ``Blue`` palettes, plain or segmented. Raises ``PermanentError``."""
    name = f"{colour}PaletteColorLookupTable"
    descriptor = _descriptor(header, f"{name}Descriptor", signed=signed)
    if descriptor is None:
        raise PermanentError(f"the image has no usable {name}Descriptor")
    entries, first, bits = descriptor
    if f"Segmented{name}Data" in header:
        segments = _words(header, f"Segmented{name}Data", 0, bits, little_endian=little_endian)
        data = expand_segments([int(word) for word in segments], bits)[:entries]
    else:
        data = _words(header, f"{name}Data", entries, bits, little_endian=little_endian)
    if not len(data):
        raise PermanentError(f"the image has no usable {name}Data")
    narrow = bits == 16 and int(data.max()) < 256  # entries of 8 bits that were declared as 16, a common error
    return LookupTable(data, first, 8 if narrow else bits)


def expand_segments(words: list[int], bits: int) -> Array:
    """The entries of a segmented palette: discrete, linear and indirect segments (PS3.3 section C.7.9.2)."""
    entries: list[int] = []
    _expand(words, entries, 1 << bits)
    return np.array(entries, np.uint16)


def _expand(
    words: list[int], entries: list[int], limit: int, *, place: int = 0, nested: bool = False, segments: int = -1
) -> None:
    while place + 1 < len(words) and segments and len(entries) < _MOST_ENTRIES:
        opcode, length = words[place], words[place + 1]
        rest = words[place + 2 : place + 6]
        if not length:  # padding; there could be any number of them, each making nothing
            return
        if opcode == 0:
            entries.extend(words[place + 2 : place + 2 + length])
            place += 2 + length
        elif opcode == 1 and rest and entries:
            last = entries[-1]
            entries.extend(round(last + (rest[0] - last) * step / length) for step in range(1, length + 1))
            place += 3
        elif opcode == 2 and len(rest) >= 2 and not nested:
            # The offset counts from the beginning of the table, in bytes of 16-bit words or in 8-bit entries.
            offset = rest[0] | rest[1] << 16 if limit > 256 else int.from_bytes(bytes(rest[:4]), "little")
            start = offset // (2 if limit > 256 else 1)
            _expand(words, entries, limit, place=start, nested=True, segments=length)
            place += 4 if limit > 256 else 6
        else:
            raise PermanentError("a segmented palette is not encoded as PS3.3 section C.7.9.2 says")
        segments -= nested


def _descriptor(dataset: Dataset, keyword: str, *, signed: bool) -> tuple[int, int, int] | None:
    values = [int(value) for value in numbers(dataset, keyword)]
    if len(values) != 3 or not 1 <= values[2] <= 16:
        return None
    first = values[1] & 0xFFFF
    if (signed or values[1] < 0) and first >= 0x8000:
        first -= 0x10000
    return (values[0] & 0xFFFF) or _MOST_ENTRIES, first, values[2]


def _words(dataset: Dataset, keyword: str, entries: int, bits: int, *, little_endian: bool) -> Array:
    """The table's data; entries of 8 bits may be packed two to a word. ``entries`` 0: as many as there are."""
    value: Any = dataset.get(keyword)
    if value is None:
        return np.empty(0, np.uint16)
    if isinstance(value, bytes | bytearray):
        packed = bits <= 8 and (entries == 0 or len(value) < 2 * entries)
        if packed:
            return _cut(_bytes_in_order(bytes(value), little_endian=little_endian), entries)
        order = "<u2" if little_endian else ">u2"
        return _cut(np.frombuffer(value[: len(value) & ~1], order).astype(np.uint16), entries)
    values = np.array(list(value) if hasattr(value, "__iter__") else [value], np.int64).astype(np.uint16)
    if bits <= 8 and entries and len(values) <= (entries + 1) // 2 < entries:
        return _cut(np.frombuffer(values.astype("<u2").tobytes(), np.uint8).astype(np.uint16), entries)
    return _cut(values, entries)


def _bytes_in_order(value: bytes, *, little_endian: bool) -> Array:
    data = np.frombuffer(value, np.uint8).astype(np.uint16)
    if little_endian or len(data) % 2:
        return data
    return data.reshape(-1, 2)[:, ::-1].reshape(-1)


def _cut(data: Array, entries: int) -> Array:
    return data[:entries] if entries else data

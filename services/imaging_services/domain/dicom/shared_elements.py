"""What the headers of a series share, so that only the rest is read element by element.

Of each series the stretches of elements are remembered that its headers have had in common so far. A stretch counts
only where its bytes are found again, whole and in place of its first element: then reading them would give what it
gave before. So which series a data set belongs to need only be guessed.
"""

import struct
from dataclasses import dataclass, field
from itertools import pairwise

from imaging_services.domain.common_stretches import common_stretches
from imaging_services.domain.dicom.elements import Header, Stretch, scan
from imaging_services.domain.dicom.sequences import Buffer
from imaging_services.domain.dicom.transfer_syntaxes import Encoding

_REMEMBERED = 64  # series, of headers of at most so many bytes:
_LONGEST = 65_536
_MOST_ELEMENTS = 1024  # and of at most so many elements, whose Python objects take more memory than those bytes
_LONGEST_UID = 64


@dataclass(slots=True)
class _Series:
    """``pieces`` are the encoded elements that all headers had, ``starts`` those that a stretch has begun with. With
    each header that differs the former become fewer and the latter more, so that this comes to an end."""

    pieces: frozenset[bytes]
    starts: frozenset[bytes] = frozenset()
    stretches: dict[int, Stretch] = field(default_factory=dict)
    seen: bool = False
    """More than one header."""

    def narrowed(self, pieces: list[bytes], encoding: Encoding) -> "_Series":
        """What this header has in common with those before."""
        common = self.pieces.intersection(pieces)
        runs, starts = common_stretches(pieces, common, self.starts)
        found = [_stretch(run, encoding) for run in runs]
        return _Series(common, starts, {one.elements[0][0]: one for one in found if one is not None}, seen=True)


def _stretch(run: list[bytes], encoding: Encoding) -> Stretch | None:
    encoded = b"".join(run)
    elements = tuple(scan(encoded, encoding, ended=False).elements)
    ascending = all(one[0] < other[0] for one, other in pairwise(elements))
    return Stretch(encoded, elements) if len(elements) == len(run) and ascending else None


_series: dict[tuple[bytes, Encoding], _Series] = {}  # the one that was learned last at the end


def scan_known(data: Buffer, encoding: Encoding, *, ended: bool) -> Header:
    """As ``scan``. Not for several threads."""
    if not isinstance(data, bytes) or (uid := _series_instance_uid(data, encoding)) is None:
        return scan(data, encoding, ended=ended)
    series = _series.get((uid, encoding))
    header = scan(data, encoding, ended=ended, known=series.stretches if series else {})
    if series is None or not series.seen or len(header.stretches) < len(series.stretches):
        _learn((uid, encoding), series, data, encoding, header)
    return header


def _learn(
    key: tuple[bytes, Encoding], series: _Series | None, data: bytes, encoding: Encoding, header: Header
) -> None:
    most = max(len(header.elements), len(header.starts))
    if not 0 < (header.pixel_data or 0) <= _LONGEST or most > _MOST_ELEMENTS:
        return
    if header.stretches:
        header = scan(data, encoding, ended=False)
    pieces = [
        data[start:end] for start, end in zip(header.starts, [*header.starts[1:], header.pixel_data], strict=True)
    ]
    learned = series.narrowed(pieces, encoding) if series else _Series(frozenset(pieces))
    _series.pop(key, None)
    _series[key] = learned
    if len(_series) > _REMEMBERED:
        del _series[next(iter(_series))]


def _series_instance_uid(data: bytes, encoding: Encoding) -> bytes | None:
    """The first that is found, which may be one of a sequence."""
    order = "<" if encoding.little_endian else ">"
    place = data.find(struct.pack(order + "HH", 0x0020, 0x000E), 0, _LONGEST)
    if place < 0 or place + 8 > len(data):
        return None
    length = struct.unpack_from(order + ("L" if encoding.implicit else "xxH"), data, place + 4)[0]
    return data[place + 8 : place + 8 + length] if 0 < length <= _LONGEST_UID else None

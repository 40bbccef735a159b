"""The header of an ``ImageStoredEvent`` read as text.

The instances of a study have most of their elements in common. So a document is cut into its elements as text, and
what a piece of text says is remembered: only the few pieces that were not seen before are parsed. Of a series the
stretches that all headers share are remembered too, so that only what lies between them has to be cut. Each piece that
is taken is a JSON object by itself: however the text was cut, it says what the whole would. A document in another
spelling than our own producer's is parsed whole.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from imaging_services.domain.common_stretches import common_stretches
from imaging_services.domain.manifest.header_elements import Element, HeaderElements, element

_FIRST = b'"elements":[{"group":"'
_NEXT = b'},{"group":"'
_LAST = b'}]},"store":'
_ITEMS, _AFTER_ITEMS = b'"items":[[', b']]},{"group":"'
_SERIES = b'},{"group":"0020","element":"000E","vr":"UI","value":"'
_UID = 64
_REMEMBERED = 16_384  # pieces, of at most so many bytes:
_REMEMBERED_LENGTH = 512
_SERIES_REMEMBERED = 64  # at a time, of headers of at most so many bytes:
_SERIES_LENGTH = 65_536
_HEAD = 96  # bytes behind the separator by which a stretch is found


def cut_document(data: bytes) -> tuple[dict[str, Any], HeaderElements] | None:
    """The document without its elements, and what those say; None when it is spelled in another way than our own.

    Raises ``InvalidInput`` as ``header_elements``.
    """
    start, end = data.find(_FIRST), data.rfind(_LAST)
    head, tail = data[:start], data[end + len(_LAST) :]
    ours = head.startswith(b'{"image":{') and head.endswith((b"{", b",")) and head.count(b"{") == 2
    if start < 0 or end < start or not ours:
        return None
    try:
        document = orjson.loads(b"".join((head, b'"elements":[]},"store":', tail)))
        header = _read_header(data, start + len(_FIRST), end)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document["image"], dict) or document["image"].get("elements") != []:  # said twice
        return None
    return document, header


class _Stretch(NamedTuple):
    """Elements that follow each other in all headers of a series, with the separator behind each; ``head`` has the one
    before them, too."""

    head: bytes
    text: bytes
    says: HeaderElements


class _Series(NamedTuple):
    """What the headers of a series have in common: pieces, and the stretches that they make up. The pieces become fewer
    and the ``starts`` of stretches more with each header that differs, so that this comes to an end."""

    pieces: frozenset[bytes]
    starts: frozenset[bytes]
    stretches: tuple[_Stretch, ...] | None

    def read(self, data: bytes, start: int, end: int) -> HeaderElements | None:
        """The header between these places; None when it lacks a stretch."""
        if self.stretches is None:
            return None
        header = HeaderElements(())
        for stretch in self.stretches:
            if not data.startswith(stretch.text, start):
                found = data.find(stretch.head, start, end)
                if found < 0 or not data.startswith(stretch.text, found + len(_NEXT)):
                    return None
                header.add(_read(_cut(data[start:found])))
                start = found + len(_NEXT)
            header.update(stretch.says)
            start += len(stretch.text)
        header.add(_read(_cut(data[start:end])))
        return header

    def narrowed(self, pieces: list[bytes]) -> "_Series":
        """What this header has in common with those before."""
        common = self.pieces.intersection(pieces)
        runs, starts = common_stretches(pieces[:-1], common, self.starts)  # no separator follows the last
        return _Series(common, starts, tuple(map(_stretch, runs)))


def _stretch(run: list[bytes]) -> _Stretch:
    text = _NEXT.join([*run, b""])
    return _Stretch(_NEXT + text[:_HEAD], text, HeaderElements(_read(run)))


_known: dict[bytes, _Series] = {}  # by Series Instance UID, the one that was read last at the end


def _read_header(data: bytes, start: int, end: int) -> HeaderElements:
    place = data.find(_SERIES, start, end) if end - start <= _SERIES_LENGTH else -1
    if place < 0:
        return HeaderElements(_read(_cut(data[start:end])))
    uid = data[place + len(_SERIES) : place + len(_SERIES) + _UID]
    uid = uid[: uid.find(b'"')]
    series = _known.pop(uid, None)
    header = series.read(data, start, end) if series else None
    if series is None or header is None:
        pieces = _cut(data[start:end])
        header = HeaderElements(_read(pieces))
        series = series.narrowed(pieces) if series else _Series(frozenset(pieces), frozenset(), None)
    _known[uid] = series
    if len(_known) > _SERIES_REMEMBERED:
        del _known[next(iter(_known))]
    return header


def _cut(body: bytes) -> list[bytes]:
    """The elements' texts, without what stands between them; those within items stay together."""
    pieces: list[bytes] = []
    start = 0
    while (sequence := body.find(_ITEMS, start)) >= 0:
        before = body.rfind(_NEXT, start, sequence)
        if before >= 0:
            pieces += body[start:before].split(_NEXT)
            start = before + len(_NEXT)
        end = body.find(_AFTER_ITEMS, sequence)
        if end < 0:
            return [*pieces, body[start:]]
        pieces.append(body[start : end + 2])
        start = end + len(_AFTER_ITEMS)
    return [*pieces, *body[start:].split(_NEXT)]


def _read(pieces: list[bytes]) -> Iterable[Element | None]:
    read = _remembered if max(map(len, pieces)) <= _REMEMBERED_LENGTH else _read_one
    return map(read, pieces)


def _read_one(piece: bytes) -> Element | None:
    return _remembered(piece) if len(piece) <= _REMEMBERED_LENGTH else _parsed(piece)


def _parsed(piece: bytes) -> Element | None:
    return element(orjson.loads(b'{"group":"' + piece + b"}"))


_remembered = lru_cache(maxsize=_REMEMBERED)(_parsed)

"""Reading a header straight from its bytes: three times as fast as through data set objects, for headers without any
oddity. Whatever is odd is left to the reader that copes with it (``instance_header``)."""

import struct
from typing import NamedTuple

from imaging_services.domain.dicom.charset import Charset, charset_of
from imaging_services.domain.dicom.part10 import read_file_head
from imaging_services.domain.dicom.pixel_layout import PIXEL_DATA_TAGS
from imaging_services.domain.dicom.sequences import LONG_VRS, MAX_DEPTH, SHORT_VRS, UNDEFINED_LENGTH
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_LITTLE, Encoding, encoding_of
from imaging_services.domain.streaming.attribute_text import (
    KNOWN_VRS,
    LONGEST_VALUE,
    PIXEL_DATA,
    HeaderAttribute,
    element_xml,
    written_vr,
)
from imaging_services.domain.streaming.attribute_text import text as text_of
from imaging_services.domain.streaming.text import value_xml

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_GROUPS_END = 0xFFFE0000
_SPECIFIC_CHARACTER_SET = 0x00080005
_PIXEL_REPRESENTATION = 0x00280103
_SOURCE_AE_TITLE = 0x00020016
_LONG = {vr: vr.decode() for vr in LONG_VRS}
_SHORT = {vr: vr.decode() for vr in SHORT_VRS}


class Odd(Exception):
    """The header has something that this reader leaves to the other one."""


class _Element(NamedTuple):
    """``vr`` as encoded, None for Implicit VR; the value lies from ``start`` to ``end``, which is None when its length
    is undefined."""

    tag: int
    vr: str | None
    start: int
    end: int | None


class _State(NamedTuple):
    """What values depend on: the character set, and Pixel Representation, which is None before it is read."""

    charset: Charset
    signed: bool | None


def scan_header(data: bytes) -> tuple[str, tuple[HeaderAttribute, ...]]:
    """Source AE title and attributes of a file whose first bytes, up to the pixel data or beyond, these are.

    Raises ``Odd`` when they are not read to the pixel data, or not without doubt.
    """
    head = read_file_head(data, ended=True)
    if head is None or head.transfer_syntax is None:
        raise Odd
    try:
        source = _source_ae_title(data[: head.data_set])
        encoding = encoding_of(head.transfer_syntax)
        attributes, end = _Scan(data, encoding).attributes(head.data_set, None, _State(charset_of(b""), None), 0)
    except (struct.error, RecursionError, UnicodeError) as error:
        raise Odd from error
    if end != len(data):
        raise Odd
    return source, tuple(attributes)


def _source_ae_title(meta: bytes) -> str:
    scan, position = _Scan(meta, EXPLICIT_LITTLE), 132
    while position < len(meta):
        element = scan.element(position)
        if element.end is None or element.end > len(meta) or element.tag >> 16 != 0x0002:
            raise Odd
        if element.tag == _SOURCE_AE_TITLE:
            return meta[element.start : element.end].decode("ascii").strip(" \0")
        position = element.end
    return ""


class _Scan:
    def __init__(self, data: bytes, encoding: Encoding) -> None:
        order = "<" if encoding.little_endian else ">"
        self._data, self._encoding = data, encoding
        self._head = struct.Struct(order + "HH2sH").unpack_from
        self._length = struct.Struct(order + "L").unpack_from

    def element(self, position: int) -> _Element:
        group, number, vr, length = self._head(self._data, position)
        tag = group << 16 | number
        name: str | None = None
        start = position + 8
        if self._encoding.implicit or group == 0xFFFE:
            length = self._length(self._data, position + 4)[0]
        elif vr in _SHORT:
            name = _SHORT[vr]
        elif vr in _LONG:
            name, length = _LONG[vr], self._length(self._data, start)[0]
            start += 4
        else:
            raise Odd
        return _Element(tag, name, start, None if length == UNDEFINED_LENGTH else start + length)

    def attributes(
        self, position: int, end: int | None, state: _State, depth: int
    ) -> tuple[list[HeaderAttribute], int]:
        """Of a data set (``depth`` 0) or an item up to ``end``, or to its delimiter; and where that is."""
        found: list[HeaderAttribute] = []
        limit, last = len(self._data) if end is None else end, 0
        while position < limit:
            element = self.element(position)
            tag = element.tag
            if tag == _ITEM_END and end is None and depth:
                return found, element.start
            if tag in PIXEL_DATA_TAGS and not depth:
                return found, len(self._data)
            if not last < tag < _GROUPS_END or (tag > PIXEL_DATA and not depth) or (element.end or 0) > limit:
                raise Odd
            last = tag
            group = tag >> 16
            if element.end is not None and (group % 2 or tag & 0xFFFF == 0 or group == 0x0002 or tag >= PIXEL_DATA):
                position = element.end  # private, a group length, out of place: not written
                continue
            xml, position, vr = self._value(element, state, depth)
            if vr in KNOWN_VRS and group % 2 == 0 and tag < PIXEL_DATA:
                found.append((f"{tag:08X}", vr, xml))
            if tag in (_SPECIFIC_CHARACTER_SET, _PIXEL_REPRESENTATION):
                state = self._state(element, state)
        if (end is None and depth) or position != limit:
            raise Odd
        return found, position

    def _value(self, element: _Element, state: _State, depth: int) -> tuple[str | None, int, str]:
        """What is written of a value, where it ends, and its VR as it is written."""
        tag, encoded, start, end = element
        vr = written_vr(tag, encoded, signed=state.signed)
        if vr is None:
            raise Odd  # it depends on Pixel Representation, which comes later
        if vr == "SQ" and encoded != "UN":
            xml, end = self._items(start, end, state, depth + 1)
            return xml, end, vr
        if end is None or (vr == "SQ" and encoded == "UN"):
            raise Odd
        if vr not in KNOWN_VRS:
            return None, end, vr
        if end - start > LONGEST_VALUE:
            return None, end, vr
        value = self._data[start:end]
        return value_xml(text_of(vr, value, state.charset, little_endian=self._encoding.little_endian)), end, vr

    def _items(self, position: int, end: int | None, state: _State, depth: int) -> tuple[str, int]:
        if depth > MAX_DEPTH:
            raise Odd
        written: list[str] = []
        limit = len(self._data) if end is None else end
        while position < limit:
            item = self.element(position)
            if item.tag == _SEQUENCE_END and end is None:
                return "".join(written), item.start
            if item.tag != _ITEM or (item.end or 0) > limit:
                raise Odd
            attributes, position = self.attributes(item.start, item.end, state, depth)
            written.append(f"<Item>{''.join(map(element_xml, attributes))}</Item>")
        if end is None or position != end:
            raise Odd
        return "".join(written), position

    def _state(self, element: _Element, state: _State) -> _State:
        tag, _, start, end = element
        if end is None:
            raise Odd
        value = self._data[start:end]
        if tag == _SPECIFIC_CHARACTER_SET:
            return state._replace(charset=charset_of(value))
        return state._replace(signed=int.from_bytes(value, "little" if self._encoding.little_endian else "big") == 1)

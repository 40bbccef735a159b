"""Whatever headers were read before, an event says what it would have said without their memory."""

import gc
import struct
import zlib
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from imaging_services.domain.dicom import shared_elements
from imaging_services.domain.dicom.elements import MOST_ELEMENTS, SERIES_INSTANCE_UID, SOP_INSTANCE_UID, Stretch, scan
from imaging_services.domain.dicom.shared_elements import scan_known
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_LITTLE, encoding_of
from imaging_services.domain.errors import ImagingError
from imaging_services.domain.ingest import heading as heading_module
from imaging_services.domain.ingest.announcement import Provenance, StoredObject, elements_json, image_stored
from imaging_services.domain.ingest.heading import heading_within
from support.instances import element

Element = tuple[int, bytes, bytes]

_EXPLICIT, _DEFLATED, _IMPLICIT, _BIG = (f"1.2.840.10008.1.2{end}" for end in (".1", ".1.99", "", ".2"))
_PIXELS: Element = (0x7FE00010, b"OW", bytes(16))
_UNDEFINED = b"\xff\xff\xff\xff"
_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD
_PROVENANCE = Provenance("SPACE", "/test", None, None, None)
_STORED = StoredObject("key.dcm", 1, "00")
_NAME = "Müller^Jürgen".encode("latin-1")
_HEADER: list[Element] = [
    (0x00080005, b"CS", b"ISO_IR 100"),
    (0x00080008, b"CS", b"ORIGINAL\\PRIMARY "),
    (0x00080016, b"UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
    (SOP_INSTANCE_UID, b"UI", b"1.2.3.4\0"),
    (0x00080060, b"CS", b"CT"),
    (0x00080201, b"SH", b"+0100 "),
    (0x00081030, b"LO", _NAME),
    (0x00081140, b"SQ", b""),
    (0x00090010, b"LO", b"MAKER ONE "),
    (0x00091001, b"LO", _NAME),
    (0x00091002, b"UN", b"\x01\x02"),
    (0x00100010, b"PN", _NAME + b" "),
    (0x00100020, b"LO", b"P-1 "),
    (0x0020000D, b"UI", b"1.2.3\0"),
    (SERIES_INSTANCE_UID, b"UI", b"1.2.3.9\0"),
    (0x00200013, b"IS", b"1 "),
    (0x00280010, b"US", b"\x08\x00"),
    (0x00280103, b"US", b"\x00\x00"),
    (0x00280106, b"SS", b"\xff\xff"),
    (0x00280107, b"UN", b"\x00\x80"),
    (0x00283006, b"OW", b"\x01\x00\xff\xff"),
    (0x00400275, b"SQ", b""),
]
_OTHER_VALUES = st.sampled_from(
    [b"", b"ISO_IR 192", b"ISO_IR 101", b"\\ISO 2022 IR 87", b"\x01\x00", b"\x00\x01", b"MAKER TWO ", _NAME, b"-0500 "]
)
_OTHER_VRS = st.sampled_from([b"LO", b"US", b"SS", b"UN", b"SQ", b"PN", b"ZZ", b"?\0"])
_EDITS = st.lists(
    st.tuples(
        st.sampled_from(["value", "value", "VR", "remove", "twice", "swap", "insert"]),
        st.integers(0, len(_HEADER) - 1),
        st.integers(0, len(_HEADER)),
        _OTHER_VALUES,
        _OTHER_VRS,
    ),
    max_size=3,
)
_SYNTAXES = st.sampled_from([_EXPLICIT, _EXPLICIT, _IMPLICIT, _BIG, _DEFLATED])
_INSTANCES = st.tuples(_EDITS, _SYNTAXES, st.one_of(st.none(), st.integers(8, 400)), st.booleans(), _SYNTAXES)


def _coded(one: Element, syntax: str) -> bytes:
    tag, vr, value = one
    encoding = encoding_of(syntax)
    order = "<" if encoding.little_endian else ">"
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if tag >> 16 == 0xFFFE:
        return head + _UNDEFINED * (tag == _ITEM) + bytes(4) * (tag != _ITEM) + value
    if vr == b"SQ":
        inner = (0x00401003, b"SH", b"STAT"), (0x00321060, b"LO", _NAME)
        items = ((_ITEM, b"", b""), *inner, (0xFFFEE00D, b"", b""), (_END, b"", b""))
        content = b"".join(_coded(each, syntax) for each in items)
        return head + (b"" if encoding.implicit else b"SQ\0\0") + _UNDEFINED + content
    if encoding.implicit:
        return head + struct.pack(order + "L", len(value)) + value
    if vr in (b"OW", b"UN"):
        return head + vr + bytes(2) + struct.pack(order + "L", len(value)) + value
    return head + vr + struct.pack(order + "H", len(value)) + value


def _edited(edits: list[tuple[str, int, int, bytes, bytes]]) -> list[Element]:
    elements = list(_HEADER)
    for kind, place, other, value, vr in edits:
        place, other = place % len(elements), other % len(elements)
        tag, old_vr, old_value = elements[place]
        if kind == "value":
            elements[place] = tag, old_vr, value
        elif kind == "VR":
            elements[place] = tag, vr, old_value
        elif kind == "remove" and len(elements) > 1:
            del elements[place]
        elif kind == "twice":
            elements.insert(other, (tag, old_vr, value))
        elif kind == "swap":
            elements[place], elements[other] = elements[other], elements[place]
        else:
            elements.insert(place, (tag + 1, vr, value))
    return elements


def _instance(elements: list[Element], syntax: str) -> bytes:
    data = b"".join(_coded(one, syntax) for one in [*elements, _PIXELS])
    if syntax != _DEFLATED:
        return data
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def _event(data: bytes, declared: str, ended: bool) -> object:
    try:
        heading = heading_within(data, declared, ended=ended)
    except ImagingError as error:
        return type(error), str(error)
    if heading is None:
        return None
    event = image_stored(_STORED, heading, _PROVENANCE)
    return event.id, event.data, heading.header, heading.meta, heading.transfer_syntax


def _same(data: bytes, declared: str, ended: bool) -> None:
    with patch.object(heading_module, "scan_known", scan):
        whole = _event(data, declared, ended)
    assert _event(data, declared, ended) == whole


@settings(max_examples=25)
@given(st.lists(_INSTANCES, min_size=1, max_size=6))
def test_events_do_not_depend_on_what_was_read_before(
    instances: list[tuple[list[tuple[str, int, int, bytes, bytes]], str, int | None, bool, str]],
) -> None:
    shared_elements._series.clear()
    for syntax in (_EXPLICIT, _IMPLICIT, _BIG) * 2:
        _same(_instance(_HEADER, syntax), syntax, ended=False)
    for number, (edits, syntax, end, ended, other) in enumerate(instances):
        data = _instance(_edited(edits), syntax)[:end]
        _same(data, syntax, ended)
        _same(data, syntax, ended)
        _same(data, other if number % 3 == 0 else syntax, not ended)
        _same(_instance(_HEADER, syntax), syntax, ended=True)


def test_a_data_set_that_begins_with_pixel_data_is_read_as_ever() -> None:
    data = element(0x7FE00010, b"OW", element(SERIES_INSTANCE_UID, b"UI", b"1.2.3.4\0") + bytes(64))
    assert scan_known(data, EXPLICIT_LITTLE, ended=False) == scan(data, EXPLICIT_LITTLE, ended=False)


def test_a_known_stretch_across_the_most_elements() -> None:
    shared = b"".join(element(0x00180000 + number, b"LO", b"x ") for number in range(20))
    place = element(SERIES_INSTANCE_UID, b"UI", b"1.2.3.5\0")
    pixels = element(0x7FE00010, b"OW", bytes(8))
    for number in range(3):
        known = scan_known(
            shared + place + element(0x00200013, b"IS", b"%d " % number) + pixels, EXPLICIT_LITTLE, ended=False
        )
    assert len(known.stretches) == 1
    for before in (MOST_ELEMENTS - 20, MOST_ELEMENTS - 10):
        data = place + element(0x00080008, b"LO", b"") * before + shared + place + pixels
        assert scan_known(data, EXPLICIT_LITTLE, ended=False) == scan(data, EXPLICIT_LITTLE, ended=False)


def _stretches() -> int:
    gc.collect()
    return sum(type(one) is Stretch for one in gc.get_objects())


def _remembered(series: int, elements: int) -> int:
    """Stretches in memory after headers of so many series."""
    shared_elements._series.clear()
    before = _stretches()
    shared = b"".join(element(0x00180000 + one, b"LO", b"") for one in range(elements))
    for number in range(series):
        uid = element(SERIES_INSTANCE_UID, b"UI", b"1.2.7.%06d" % number)
        for instance in range(3):
            data = shared + uid + element(0x00200013, b"IS", b"%d " % instance) + element(0x7FE00010, b"OW", b"")
            elements_json(scan_known(data, EXPLICIT_LITTLE, ended=False))
    return _stretches() - before


def test_of_a_series_that_is_forgotten_nothing_stays_in_memory() -> None:
    assert _remembered(series=100, elements=4) == 64


def test_headers_of_thousands_of_elements_are_not_remembered() -> None:
    assert _remembered(series=1, elements=900) == 1
    assert _remembered(series=1, elements=3000) == 0

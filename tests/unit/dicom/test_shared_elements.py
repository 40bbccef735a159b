"""What the headers of a series share is read once, and every header says what reading it whole would say."""

import itertools
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging_services.domain.dicom.elements import SERIES_INSTANCE_UID, Header, scan
from imaging_services.domain.dicom.shared_elements import scan_known
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, Encoding
from imaging_services.domain.ingest.announcement import elements_json
from support.instances import element

_SERIES = itertools.count(1)
_PIXELS = element(0x7FE00010, b"OW", bytes(64))
_FEW = element(0x00080005, b"CS", b"ISO_IR 100") + element(0x00080008, b"CS", b"ORIGINAL")
_STANDARD = b"".join(element(0x00180000 + number, b"LO", b"value %d " % number) for number in range(0x50, 0x70, 2))
_GEOMETRY = b"".join(element(0x00280000 + number, b"US", b"\x01\x02") for number in range(2, 0x12))


def _uid() -> bytes:
    text = b"1.2.840.99999.7.%d" % next(_SERIES)
    return text + b"\0" * (len(text) % 2)


def _instance(number: int, series: bytes, *, before: bytes = _FEW, between: bytes = b"") -> bytes:
    place = element(SERIES_INSTANCE_UID, b"UI", series) + element(0x00200013, b"IS", b"%03d " % number)
    return before + element(0x00080018, b"UI", b"1.2.%04d" % number) + _STANDARD + between + place + _GEOMETRY + _PIXELS


def _same(data: bytes, encoding: Encoding = EXPLICIT_LITTLE) -> Header:
    """The header, which is that of a whole reading, and so is what an event tells of it."""
    known, whole = scan_known(data, encoding, ended=False), scan(data, encoding, ended=False)
    assert known == whole
    assert known.pixel_data_end == whole.pixel_data_end
    assert elements_json(known) == elements_json(whole)
    return known


def test_from_the_third_header_on_only_what_differs_is_read() -> None:
    series = _uid()
    headers = [_same(_instance(number, series)) for number in range(1, 6)]
    assert [len(header.stretches) for header in headers] == [0, 0, 2, 2, 2]
    assert [len(header.starts) for header in headers[2:]] == [len(_ends(headers[0]))] * 3


def _ends(header: Header) -> list[int]:
    """The tags outside of long stretches: the first two, SOP Instance UID and Instance Number."""
    return [tag for tag, _, _ in header.elements if tag >> 16 == 0x0008 or tag == 0x00200013]


def test_headers_that_differ_more_share_less_and_are_learned_once() -> None:
    series = _uid()
    for number in range(3):
        _same(_instance(number, series))
    other = element(0x00180070, b"LO", b"only here")
    assert len(_same(_instance(4, series, between=other)).stretches) < 2
    assert [len(_same(_instance(number, series, between=other)).stretches) for number in (5, 6)] == [2, 2]
    assert [len(_same(_instance(number, series)).stretches) for number in (7, 8)] == [2, 2]


def test_series_do_not_disturb_one_another() -> None:
    uids = [_uid() for _ in range(8)]
    for number in range(3):
        headers = [_same(_instance(number, uid, before=_FEW + element(0x00080060, b"CS", b"CT"))) for uid in uids]
    assert all(len(header.stretches) == 3 for header in headers)


def test_a_header_without_an_end_is_read_but_not_learned() -> None:
    data = _instance(1, _uid())
    for _ in range(3):
        header = scan_known(data[: -len(_PIXELS) - 3], EXPLICIT_LITTLE, ended=False)
        assert (header.stretches, header.complete) == ([], False)


def test_what_breaks_off_within_a_stretch_is_read_up_to_there() -> None:
    series = _uid()
    for number in range(3):
        _same(_instance(number, series))
    data = _instance(3, series)
    for end in range(len(data) - len(_PIXELS) - 40, len(data)):
        _same(data[:end])


@pytest.mark.parametrize("encoding", [EXPLICIT_BIG, IMPLICIT_LITTLE])
def test_other_encodings(encoding: Encoding) -> None:
    def coded(tag: int, vr: bytes, value: bytes) -> bytes:
        order: Literal["little", "big"] = "little" if encoding.little_endian else "big"
        head = (tag >> 16).to_bytes(2, order) + (tag & 0xFFFF).to_bytes(2, order)
        if encoding.implicit:
            return head + len(value).to_bytes(4, order) + value
        wide = vr == b"OW"
        return head + vr + bytes(2 * wide) + len(value).to_bytes(4 if wide else 2, order) + value

    series = _uid()
    for number in range(4):
        tags = [(0x00180000 + one, b"LO", b"some") for one in range(0x50, 0x60)]
        tags += [(SERIES_INSTANCE_UID, b"UI", series), (0x00200013, b"IS", b"%d " % number)]
        header = _same(b"".join(coded(*one) for one in [*tags, (0x7FE00010, b"OW", bytes(8))]), encoding)
    assert [len(stretch.elements) for _, stretch in header.stretches] == [17]


def test_too_many_elements_behind_a_known_stretch() -> None:
    series = _uid()
    for number in range(3):
        _same(_instance(number, series))
    private = b"".join(element(0x00290000 + number, b"LO", b"x ") for number in range(20_000))
    header = _same(_instance(4, series)[: -len(_PIXELS)] + private + _PIXELS)
    assert (header.stretches, header.starts) == ([], [])
    assert not any(tag & 0x10000 for tag, _, _ in header.elements)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 200), st.binary(max_size=12)), min_size=1, max_size=6))
def test_whatever_differs_the_header_is_the_same(changes: list[tuple[int, bytes]]) -> None:
    series = _uid()
    for number in range(3):
        _same(_instance(number, series))
    for number, (place, other) in enumerate(changes):
        data = _instance(number, series)
        broken = data[:place] + other + data[place + len(other) :]
        try:
            whole = scan(broken, EXPLICIT_LITTLE, ended=False)
        except Exception as error:  # noqa: BLE001 - the same is raised
            with pytest.raises(type(error)):
                scan_known(broken, EXPLICIT_LITTLE, ended=False)
        else:
            assert scan_known(broken, EXPLICIT_LITTLE, ended=False) == whole
        _same(data)

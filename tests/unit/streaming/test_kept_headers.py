"""Headers as they are kept between documents, and documents made of them."""

import tracemalloc
import zlib
from datetime import UTC, datetime

from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.streaming.instance_header import InstanceHeader, is_packed, unpacked
from imaging_services.domain.streaming.study_document import gzipped_document
from imaging_services.domain.streaming.study_reader import read_document

MOMENT = datetime(2026, 11, 21, tzinfo=UTC)


def place(number: int) -> InstanceLocation:
    uid, syntax = f"1.2.3.{number}", "1.2.840.10008.1.2.1"
    return InstanceLocation("1.2", "1.2.3", uid, "1.1", syntax, "p", "o", None, 100, None, None, MOMENT)


def header(number: int) -> InstanceHeader:
    values = [(f"0020{one:04X}", "LO", f"value {one}") for one in range(2, 80)]
    return InstanceHeader("SCANNER", (("00080018", "UI", f"1.2.3.{number}"), ("00104000", "LT", None), *values))


def test_a_kept_header_comes_back() -> None:
    for one in (header(1), InstanceHeader("", ())):
        assert is_packed(one.packed())
        assert unpacked(one.packed()) == one


def test_headers_that_another_version_kept_are_not_taken() -> None:
    for content in (b"", b"[1,", zlib.compress(b'[2,"",[]]'), zlib.compress(b'[10,"",[]]')):
        assert not is_packed(content)


def test_packed_headers_make_the_same_document_in_little_memory() -> None:
    packed = [(place(number), header(number).packed()) for number in range(400)]
    expected = gzipped_document("1.2", [(place(number), header(number)) for number in range(400)])
    tracemalloc.start()
    try:
        document = gzipped_document("1.2", packed)
        together = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        apart = [unpacked(content) for _, content in packed]
        assert together < tracemalloc.get_traced_memory()[1] / 4, len(apart)
    finally:
        tracemalloc.stop()
    assert document == expected


def test_a_size_that_cannot_be_is_none() -> None:
    instance = f"<Instance UID='3' FileSize='{'9' * 5000}'/>"
    study = read_document(f"<S><Study UID='1'><Series UID='2'>{instance}</Series></Study></S>".encode())
    assert study.instances[0].size == 0

"""The study header document, read back by another reader and compared with pydicom's reading of the files."""

import gzip
import struct
import warnings
from datetime import UTC, datetime
from typing import Any

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset, Sequence
from pydicom.multival import MultiValue

from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.errors import InvalidInput, NotDicom, PermanentError
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.streaming.header_scan import Odd, scan_header
from imaging_services.domain.streaming.instance_header import (
    InstanceHeader,
    read_awkward_header,
    read_instance_header,
    unpacked,
)
from imaging_services.domain.streaming.study_document import gzipped_document
from imaging_services.domain.streaming.study_reader import Attributes, read_document, read_gzipped
from imaging_services.domain.streaming.text import value_of, value_xml
from support.dicom_files import DicomFile, storable_files
from support.dicomweb import part10_of
from support.study_xml import EXCLUDED, read_study_xml, unescaped

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of awkward files
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    FILES = [file for file in storable_files() if file.transfer_syntax_uid != "1.2.840.10008.1.2.1.99"]
NEWER = {"UC": "UT", "UR": "UT"}
LEFT_OUT = {"UN", "OL", "OV", "SV", "UV"}
NUMBERS = {"DS", "IS", "FL", "FD", "US", "SS", "UL", "SL"}
PIXEL_DATA = 0x7FE00010


def header_of(content: bytes) -> InstanceHeader:
    header = read_instance_header(RangeFile(b"", len(content), lambda start, length: content[start : start + length]))
    assert unpacked(header.packed()) == header
    return header


def location_of(file: DicomFile, size: int) -> InstanceLocation:
    return InstanceLocation(
        *file.identity,
        file.sop_class_uid,
        file.transfer_syntax_uid,
        "north",
        "object.dcm",
        None,
        size,
        None,
        None,
        datetime(2026, 11, 21, tzinfo=UTC),
    )


def place(number: int, *, series: str = "1.2.3", size: int = 100) -> InstanceLocation:
    moment = datetime(2026, 11, 21, tzinfo=UTC)
    return InstanceLocation(
        "1.2", series, f"1.2.3.{number}", "1.1", "1.2.840.10008.1.2.1", "p", "o", None, size, None, None, moment
    )


def header(**values: str | None) -> InstanceHeader:
    """``t00100010="Doe"``: LO values as they are, None for an excluded one."""
    attributes = [(tag[1:], "LO", None if value is None else value_xml(value)) for tag, value in values.items()]
    return InstanceHeader("", tuple(sorted(attributes)))


def in_file(dataset: Dataset) -> dict[str, tuple[str, Any]]:
    """What the document should say of a data set, as pydicom reads it."""
    found = {}
    for element in dataset:
        tag = int(element.tag)
        if tag >= PIXEL_DATA or element.tag.is_private or tag & 0xFFFF == 0 or element.VR in LEFT_OUT:
            continue
        vr = NEWER.get(element.VR, element.VR)
        found[f"{tag:08X}"] = vr, [in_file(item) for item in element.value] if vr == "SQ" else plain(element)
    return found


def plain(element: Any) -> Any:
    value = element.value
    if value is None or value == "" or value == b"":
        return ()
    if element.VR in ("OF", "OD"):
        code, width = ("f", 4) if element.VR == "OF" else ("d", 8)
        return [float(one) for one in struct.unpack(f"<{len(value) // width}{code}", value)]
    if isinstance(value, bytes):
        return list(value)
    values = list(value) if isinstance(value, MultiValue | list) else [value]
    return [comparable(element.VR, one) for one in values]


def comparable(vr: str, value: Any) -> Any:
    if vr == "AT":
        return int(value)
    text = str(value).strip(" \0")
    if vr == "PN":
        return text.rstrip("=")  # pydicom leaves out component groups that are empty
    try:
        return float(text) if vr in NUMBERS else text
    except ValueError:  # an IS such as 1A
        return text


def in_document(data_set: dict[str, tuple[str, Any]]) -> dict[str, tuple[str, Any]]:
    return {
        tag: (vr, [in_document(item) for item in value] if vr == "SQ" else parsed(vr, value))
        for tag, (vr, value) in data_set.items()
    }


def parsed(vr: str, text: str) -> Any:
    if text in ("", EXCLUDED):
        return text or ()
    if vr in ("LT", "ST", "UT"):
        return [text.strip(" \0")]
    values = text.split("\\")
    if vr in ("OB", "OW"):
        return [int(value) for value in values]
    if vr in ("OF", "OD"):
        return [float(value) for value in values]
    return [comparable(vr, int(value, 16) if vr == "AT" else value) for value in values]


def without_excluded(found: dict[str, tuple[str, Any]], wanted: dict[str, tuple[str, Any]]) -> dict[str, Any]:
    """What is excluded counts as equal, when it really is long."""
    result = {}
    for tag, (vr, value) in found.items():
        there = wanted.get(tag, ("", ()))[1]
        if value == EXCLUDED:
            assert len(str(there)) > 4096, tag
            value = there
        elif vr == "SQ" and len(value) == len(there):
            value = [without_excluded(item, other) for item, other in zip(value, there, strict=True)]
        result[tag] = vr, value
    return result


def test_both_readers_of_headers_agree_on_every_file_and_the_fast_one_reads_most() -> None:
    read = 0
    for file in FILES:
        content = part10_of(file)
        awkward = read_awkward_header(RangeFile(content, len(content), lambda *_: b""))
        try:
            fast = InstanceHeader(*scan_header(content))
        except Odd:
            continue
        assert fast == awkward, file.path.name
        read += 1
    assert read > 0.8 * len(FILES)


SMALL = [file for file in FILES if len(file.data_set) < 20_000]
BYTES = st.sampled_from([0x00, 0x02, 0x08, 0x10, 0x5C, 0xE0, 0xFE, 0xFF]) | st.integers(0, 255)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(SMALL), st.lists(st.tuples(st.integers(300, 5000), BYTES), min_size=1, max_size=4))
def test_broken_headers_are_refused_or_read_alike(file: DicomFile, changes: list[tuple[int, int]]) -> None:
    content = bytearray(part10_of(file))
    for position, byte in changes:
        content[position % len(content)] = byte
    broken = bytes(content)
    try:
        fast = InstanceHeader(*scan_header(broken))
    except (Odd, NotDicom):
        return
    try:
        awkward = read_awkward_header(RangeFile(broken, len(broken), lambda *_: b""))
    except PermanentError:
        return
    assert fast == awkward


def test_a_header_that_is_cut_is_not_read_fast() -> None:
    content = part10_of(next(file for file in FILES if file.path.name == "CT_small.dcm"))
    whole = scan_header(content)
    for end in range(200, content.index(b"\xe0\x7f\x10\x00OW"), 11):
        try:
            source, attributes = scan_header(content[:end])
        except (Odd, NotDicom):
            continue
        assert (source, attributes) == (whole[0], whole[1][: len(attributes)]), "it ends with an element"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.path.name)
def test_another_reader_finds_what_pydicom_finds_in_the_file(file: DicomFile) -> None:
    content = part10_of(file)
    packed = gzipped_document(file.study_instance_uid, [(location_of(file, len(content)), header_of(content))])
    study, series = read_study_xml(packed)
    assert study == file.study_instance_uid
    instance = series[file.series_instance_uid][file.sop_instance_uid]
    assert instance["SopClassUID"] == file.sop_class_uid
    assert instance["TransferSyntaxUID"] == file.transfer_syntax_uid
    assert instance["FileSize"] == str(len(content))
    wanted = in_file(pydicom.dcmread(file.path, force=True, stop_before_pixels=True))
    assert without_excluded(in_document(instance["header"]), wanted) == wanted


def test_all_files_as_one_study_are_each_what_they_are_alone() -> None:
    """Differences to whatever base give the same as no base at all; the product's own reader agrees."""
    contents = [(file, part10_of(file)) for file in FILES]
    members = []
    for number, (file, content) in enumerate(contents):
        location = location_of(file, len(content))
        members.append((place(number, series=location.series_instance_uid[:6]), header_of(content)))
    packed = gzipped_document("1.2", members)
    _, series = read_study_xml(packed)
    together = {uid: instance["header"] for one in series.values() for uid, instance in one.items()}
    own = {one.sop_instance_uid: one for one in read_gzipped(packed).instances}
    assert max(len(one) for one in series.values()) > 5
    for location, one in members:
        _, alone = read_study_xml(gzipped_document("1.2", [(location, one)]))
        ((instance,),) = [list(found.values()) for found in alone.values()]
        assert together[location.sop_instance_uid] == instance["header"]
        assert as_other(own[location.sop_instance_uid].attributes) == instance["header"]


def as_other(attributes: Attributes) -> dict[str, tuple[str, Any]]:
    return {
        f"{tag:08X}": (
            value.vr,
            [as_other(item) for item in value.items]
            if value.items is not None
            else value.text or ("", EXCLUDED)[value.excluded],
        )
        for tag, value in attributes.items()
    }


CASES = st.sampled_from(["same", "same", "other", "", "missing", None])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(CASES, min_size=4, max_size=4), min_size=1, max_size=4))
def test_equal_different_empty_missing_and_excluded_in_every_position(rows: list[list[str | None]]) -> None:
    tags = ["00100010", "00100020", "00200010", "00400254"]
    members = [
        (
            place(number),
            header(**{f"t{tag}": value for tag, value in zip(tags, row, strict=True) if value != "missing"}),
        )
        for number, row in enumerate(rows)
    ]
    _, series = read_study_xml(gzipped_document("1.2", members))
    for number, row in enumerate(rows):
        found = series["1.2.3"][f"1.2.3.{number}"]["header"]
        wanted = {
            tag: EXCLUDED if value is None else value
            for tag, value in zip(tags, row, strict=True)
            if value != "missing"
        }
        assert {tag: value for tag, (_, value) in found.items()} == wanted


def test_only_the_first_two_instances_make_the_base() -> None:
    members = [(place(n), header(t00100010="A", t00200013=str(n), t00080060="CT" if n < 2 else "MR")) for n in range(3)]
    raw = gzip.decompress(gzipped_document("1.2", members)).decode()
    base, instances = raw.split("</BaseInstance>")
    assert '<Attribute Tag="00080060" VR="LO">CT</Attribute>' in base
    assert '<Attribute Tag="00100010" VR="LO">A</Attribute>' in base
    assert "00200013" not in base
    assert instances.count("00080060") == 1
    assert "00100010" not in instances


def test_binary_values_in_both_are_excluded_from_the_base_and_written_in_each() -> None:
    one = InstanceHeader("", (("00420011", "OB", "1\\2"),))
    raw = gzip.decompress(gzipped_document("1.2", [(place(1), one), (place(2), one)])).decode()
    base, instances = raw.split("</BaseInstance>")
    assert '<ExcludedAttribute Tag="00420011" VR="OB" />' in base
    assert instances.count('<Attribute Tag="00420011" VR="OB">1\\2</Attribute>') == 2


def test_escaping_is_done_twice() -> None:
    assert value_xml("A&B") == "A&amp;amp;B"
    assert value_xml("\x1b") == "&amp;#x1B;"
    assert value_xml("a<b>\"'") == "a&amp;lt;b&amp;gt;&amp;quot;&amp;apos;"


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])) | st.text("&<>\"'\r\n\t\x00\x1b#x;amp1B"))
def test_every_text_comes_back(value: str) -> None:
    study = gzipped_document("1.2", [(place(1), InstanceHeader(value, (("00100010", "LO", value_xml(value)),)))])
    ((instance,),) = [list(found.values()) for found in read_study_xml(study)[1].values()]
    assert instance["header"]["00100010"] == ("LO", value)
    assert unescaped(instance.get("SourceAETitle", "")) == value
    (own,) = read_gzipped(study).instances
    assert own.attributes[0x00100010].text == value
    assert own.source_ae_title == value


def test_a_character_beyond_16_bits_may_come_as_two_halves() -> None:
    assert value_of("&#xD83D;&#xDE00;!") == "😀!"


def test_long_values_are_excluded_by_their_padded_length_also_within_items() -> None:
    dataset = Dataset()
    dataset.PatientComments = "x" * 4096
    dataset.ImageComments = "y" * 4097
    item = Dataset()
    item.PatientComments = "z" * 5000
    item.PatientName = "Doe"
    dataset.ReferencedSeriesSequence = Sequence([item])
    content = part10_with(dataset)
    _, series = read_study_xml(gzipped_document("1.2", [(place(1), header_of(content))]))
    found = series["1.2.3"]["1.2.3.1"]["header"]
    assert found["00104000"] == ("LT", "x" * 4096)
    assert found["00204000"] == ("LT", EXCLUDED)
    assert found["00081115"] == ("SQ", [{"00100010": ("PN", "Doe"), "00104000": ("LT", EXCLUDED)}])


def test_private_elements_group_lengths_and_pixel_data_do_not_appear() -> None:
    dataset = Dataset()
    dataset.PatientName = "Doe"
    dataset.add_new(0x00080000, "UL", 4)
    dataset.private_block(0x0019, "VENDOR", create=True).add_new(1, "LO", "secret")
    dataset.add_new(0x00189999, "UN", b"??")
    dataset.Rows = dataset.Columns = 2
    icon = Dataset()
    icon.Rows = 1
    icon.add_new(PIXEL_DATA, "OW", b"\1\2")
    dataset.IconImageSequence = Sequence([icon])
    dataset.add_new(PIXEL_DATA, "OW", bytes(8))
    _, series = read_study_xml(gzipped_document("1.2", [(place(1), header_of(part10_with(dataset)))]))
    found = series["1.2.3"]["1.2.3.1"]["header"]
    assert set(found) == {"00100010", "00280010", "00280011", "00880200"}
    assert found["00880200"] == ("SQ", [{"00280010": ("US", "1")}])


def part10_with(dataset: Dataset) -> bytes:
    import io

    out = io.BytesIO()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    pydicom.dcmwrite(out, dataset, little_endian=True, implicit_vr=False)
    return bytes(128) + b"DICM" + out.getvalue() if not out.getvalue().startswith(bytes(128)) else out.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"<ClearCanvasStudyXml><Study UID='1'>",
        b"<!DOCTYPE x [<!ENTITY a 'b'>]><ClearCanvasStudyXml><Study UID='1'>&a;</Study></ClearCanvasStudyXml>",
        b"<other />",
        b"<Study UID='1'>" + b"<Item>" * 300,
        b"<S><Study UID='1'><Attribute Tag='00100010' VR='PN'>x</Attribute></Study></S>",
        b"<S><Study UID='1'><Series UID='2'><Instance UID='3'><Attribute Tag='bad' /></Instance></Series></Study></S>",
        b"<S><Study UID='1'><Item></Item></Study></S>",
        b"<?xml version='1.0' encoding='none-such'?><S><Study UID='1'/></S>",
        b"<?xml version='1.0' encoding='shift_jis'?><S><Study UID='1'/></S>",
    ],
    ids=["cut", "document type", "no study", "deep", "outside", "bad tag", "item outside", "encoding", "multi-byte"],
)
def test_a_document_that_cannot_be_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_document(content)


def test_a_keyword_is_a_tag_too_and_the_first_study_counts() -> None:
    study = read_document(
        b"<S><Study UID='1'><Series UID='2'><BaseInstance/><Instance UID='3'>"
        b"<Attribute Tag='$PatientName' VR='PN'>A</Attribute></Instance></Series></Study><Study UID='9'/></S>"
    )
    assert study.study_instance_uid == "1"
    assert study.instances[0].attributes[0x00100010].text == "A"


def test_cut_or_foreign_bytes_are_no_document() -> None:
    packed = gzipped_document("1.2", [(place(1), header(t00100010="A"))])
    for content in (packed[:-9], b"plain"):
        with pytest.raises(InvalidInput):
            read_gzipped(content)

"""What is told of instances that bend the Standard."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging_services.domain.ingest.conformance import MOST_FINDINGS, findings
from imaging_services.domain.ingest.heading import complete_heading, take_heading
from imaging_services.domain.ingest.value_rules import broken_rule
from support.instances import EXPLICIT, blocks, element, encoded, instance

COMPLETE = {
    "StudyDate": "20261121", "StudyTime": "1200", "AccessionNumber": "", "ReferringPhysicianName": "",
    "PatientBirthDate": "", "PatientSex": "", "StudyID": "", "SeriesNumber": 1, "InstanceNumber": 1,
    "PhotometricInterpretation": "MONOCHROME2",
}  # fmt: skip


async def told(content: bytes) -> dict[int, str]:
    heading = await take_heading(blocks(content), EXPLICIT)
    body = heading.meta + content
    return {one.tag: one.comment for one in findings(await complete_heading(heading, body), len(body))}


async def test_what_keeps_the_standard_has_no_finding() -> None:
    assert await told(encoded(instance(**COMPLETE))) == {}


async def test_missing_and_empty_attributes_are_named() -> None:
    content = encoded(
        instance(**{**COMPLETE, "StudyDate": "20261121", "Modality": "", "Rows": None, "PatientID": None})
    )
    assert await told(content) == {
        0x00080060: "Modality is empty (type 1)",
        0x00280010: "Rows is missing (type 1)",
        0x00100020: "PatientID is missing (type 2)",
    }


async def test_the_order_and_the_form_of_elements_are_looked_at() -> None:
    dataset = instance(**COMPLETE)
    del dataset.PixelData
    content = encoded(dataset) + element(0x00400002, b"DA", b"2026.1.1") + element(0x00400002, b"DA", b"20261301")
    content += element(0x00400001, b"LO", b"AE") + element(0x00400244, b"UI", b"1.02")
    assert await told(content) == {
        0x00400002: "a value is no date",
        0x00400001: "VR LO, the Standard has AE",
        0x00400244: "VR UI, the Standard has DA",
    }


async def test_elements_in_disorder_are_told() -> None:
    dataset = instance(**COMPLETE)
    del dataset.PixelData
    date, title = element(0x00400002, b"DA", b"20261121"), element(0x00400001, b"AE", b"AE")
    assert await told(encoded(dataset) + date + date) == {0x00400002: "occurs twice"}
    assert await told(encoded(dataset) + date + title) == {0x00400001: "not in ascending order of tags"}


async def test_a_wrong_group_length_is_told() -> None:
    good, wrong = (element(0x00400000, b"UL", bytes([n, 0, 0, 0])) for n in (10, 12))
    dataset = instance(**COMPLETE)
    del dataset.PixelData
    tail = element(0x00400001, b"AE", b"AE")
    assert 0x00400000 not in await told(encoded(dataset) + good + tail)
    assert (await told(encoded(dataset) + wrong + tail))[0x00400000] == "group length is wrong, it is 10"


async def test_what_is_cut_short_is_told() -> None:
    whole = encoded(instance(**COMPLETE))
    assert (await told(whole[:-2]))[0x7FE00010] == "shorter than its length says"


async def test_findings_have_a_limit() -> None:
    dataset = instance()
    del dataset.PixelData
    content = encoded(dataset) + b"".join(element(0x00410010 + n, b"LO", b"odd") for n in range(100))
    assert len(await told(content)) == MOST_FINDINGS


@pytest.mark.parametrize(
    ("vr", "value", "character_set", "rule"),
    [
        ("UI", b"1.2.840\x00", b"", None),
        ("UI", b"1.2.840 ", b"", "padded with a space, not NUL"),
        ("UI", b"1.02\\1.2", b"", "a value is not UI as PS3.5 has it"),
        ("UI", b"1." + b"2" * 64, b"", "a value is not UI as PS3.5 has it"),
        ("UI", b"1.2.3", b"", "odd length 5"),
        ("DA", b"20260230", b"", "a value is no date"),
        ("DA", b"20261121\\20261122 "[:18], b"", None),
        ("TM", b"123456.789 "[:10], b"", None),
        ("TM", b"9999", b"", "a value is not TM as PS3.5 has it"),
        ("DT", b"20261121103000.000000+0100", b"", None),
        ("AS", b"045Y", b"", None),
        ("AS", b"45Y ", b"", "a value is not AS as PS3.5 has it"),
        ("CS", b"ORIGINAL\\PRIMARY", b"", None),
        ("CS", b"original", b"", "a value is not CS as PS3.5 has it"),
        ("IS", b"-12 ", b"", None),
        ("IS", b"4294967296", b"", "a value is beyond IS"),
        ("DS", b"1.5e-3\\.5 ", b"", None),
        ("DS", b"1,5 ", b"", "a value is not DS as PS3.5 has it"),
        ("DS", b"0.12345678901234567 ", b"", "a value is not DS as PS3.5 has it"),
        ("US", b"\x01\x00\x02\x00", b"", None),
        ("UL", b"\x01\x00", b"", "length 2 is no multiple of 4"),
        ("LO", b"a\x00", b"", "padded with NUL, not a space"),
        ("LO", b"a\tb ", b"", "control characters"),
        ("LT", b"a\tb\r\nc", b"", None),
        ("LT", b"a\x00b ", b"", "control characters"),
        ("SH", b"seventeen letters ", b"", "17 characters, SH has 16"),
        ("LO", "ü".encode(), b"", "not ASCII, and no SpecificCharacterSet"),
        ("LO", b"\xfc ", b"ISO_IR 192", "not UTF-8, as SpecificCharacterSet says"),
        ("SH", "ü".encode() * 16, b"ISO_IR 192", None),
        ("PN", b"a" * 64 + b"=" + b"b" * 63, b"ISO_IR 100", None),
        ("PN", b"a" * 66, b"ISO_IR 100", "66 characters, PN has 64"),
        ("PN", b"a" * 66, b"ISO 2022 IR 87", None),
    ],
)
def test_rules_of_values(vr: str, value: bytes, character_set: bytes, rule: str | None) -> None:
    assert broken_rule(vr, value, character_set) == rule


VRS = (
    *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "OB", "OD", "OF", "OL", "OV", "OW"),
    *("PN", "SH", "SL", "SS", "ST", "SV", "TM", "UC", "UI", "UL", "UR", "US", "UT", "UV"),
)


@given(
    st.sampled_from(VRS),
    st.binary(max_size=200),
    st.sampled_from([b"", b"ISO_IR 192", b"ISO_IR 100", b"GB18030", b"nonsense"]),
)
def test_no_value_is_too_odd(vr: str, value: bytes, character_set: bytes) -> None:
    rule = broken_rule(vr, value, character_set)
    assert rule is None or 0 < len(rule) <= 64


@pytest.mark.parametrize("valid", [True, False])
async def test_a_header_made_of_group_lengths_takes_no_longer_than_others(valid: bool) -> None:
    dataset = instance(**COMPLETE)
    del dataset.PixelData
    groups = range(0x0042, 0x7FE0, 2) if valid else [0x0042] * 16_000
    content = encoded(dataset) + b"".join(element(group << 16, b"UL", bytes(4)) for group in groups)
    heading = await take_heading(blocks(content), EXPLICIT)
    body = heading.meta + content
    heading = await complete_heading(heading, body)
    begun = time.process_time()
    found = findings(heading, len(body))
    assert time.process_time() - begun < 2
    assert len(found) == (0 if valid else MOST_FINDINGS)

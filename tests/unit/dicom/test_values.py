"""Values as text: character sets, numbers, padding; and UIDs as peers send them."""

import struct

import pytest

from imaging_services.domain.dicom.charset import charset_of, decode
from imaging_services.domain.dicom.dictionary import definite_vr, implicit_vr
from imaging_services.domain.dicom.uids import clean_uid, is_uid, require_uid
from imaging_services.domain.dicom.values import Decoding, decode_element, text_values
from imaging_services.domain.errors import MissingIdentifier

NONE = charset_of(b"")


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        (b"ISO_IR 100", "Müller".encode("latin-1"), "Müller"),
        (b"ISO_IR 192", "Müller^山田".encode(), "Müller^山田"),
        (b"ISO_IR 126 ", "Διονυσιος".encode("iso8859-7"), "Διονυσιος"),
        (b"GB18030", "王^小东".encode("gb18030"), "王^小东"),
        (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
        (b"ISO 2022 IR 6\\ISO 2022 IR 149", b"Hong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "Hong=洪^吉洞"),
        (b"ISO-IR 100", b"J\xe9r\xf4me", "Jérôme"),  # misspelt
        (b"iso_ir 100", b"J\xe9r\xf4me", "Jérôme"),
        (b"", "Jérôme".encode(), "Jérôme"),  # missing, and UTF-8
        (b"", b"J\xe9r\xf4me", "Jérôme"),  # missing, and Latin-1
        (b"ISO_IR 192", b"J\xe9r\xf4me", "Jérôme"),  # wrong: not UTF-8
        (b"NONSENSE", b"J\xe9r\xf4me", "Jérôme"),
        (b"ISO_IR 192\\ISO 2022 IR 87", "Müller".encode(), "Müller"),  # stands alone
        (b"ISO 2022 IR 6\\ISO_IR 192", b"Plain", "Plain"),
        (b"ISO 2022 IR 87", b"\x1b$Bbroken\xff", "\x1b$Bbroken\xff"),
    ],
)
def test_text_is_decoded_and_never_lost(charset: bytes, raw: bytes, text: str) -> None:
    assert decode(raw, charset_of(charset), b"\\^=") == text


@pytest.mark.parametrize(
    ("vr", "raw", "values"),
    [
        ("UI", b"1.2.3\0", ("1.2.3",)),
        ("LO", b" one \\ two ", ("one", "two")),
        ("CS", b"A\\\\B ", ("A", "", "B")),
        ("LT", b"  kept\\as it is  ", ("  kept\\as it is",)),
        ("LO", b"a\0b", ("ab",)),  # neither JSON consumers nor PostgreSQL take NUL
        ("LO", b"  ", ()),
        ("PN", b"Doe^Jane ", ("Doe^Jane",)),
        ("US", struct.pack("<HH", 1, 65535), ("1", "65535")),
        ("SS", struct.pack("<h", -2), ("-2",)),
        ("UL", struct.pack("<L", 1 << 31), ("2147483648",)),
        ("SL", struct.pack("<l", -5), ("-5",)),
        ("UV", struct.pack("<Q", 1 << 63), (str(1 << 63),)),
        ("SV", struct.pack("<q", -1), ("-1",)),
        ("FL", struct.pack("<f", 9.7), ("9.7",)),
        ("FL", struct.pack("<f", 133.39093), ("133.39093",)),
        ("FD", struct.pack("<d", 0.1), ("0.1",)),
        ("AT", struct.pack("<HH", 0x0020, 0x000D), ("0020000D",)),
        ("US", b"\1", ()),  # too short
        ("OB", b"\1\2", ()),
        ("UN", b"\1\2", ()),
    ],
)
def test_values_of_each_vr(vr: str, raw: bytes, values: tuple[str, ...]) -> None:
    assert text_values(vr, raw, NONE) == values


def test_big_endian_numbers() -> None:
    assert text_values("US", b"\x01\x00", NONE, little_endian=False) == ("256",)


def test_ambiguous_and_unknown_vrs_are_resolved_by_the_dictionary() -> None:
    signed = Decoding(NONE, signed=True, little_endian=True)
    unsigned = Decoding(NONE, signed=False, little_endian=True)
    assert decode_element(0x00280106, "US or SS", b"\xff\xff", signed) == ("SS", ("-1",))
    assert decode_element(0x00280106, "US or SS", b"\xff\xff", unsigned) == ("US", ("65535",))
    assert decode_element(0x00100020, "UN", b"P-1 ", unsigned) == ("LO", ("P-1",))
    assert decode_element(0x00091010, "UN", b"P-1 ", unsigned) == ("UN", ())
    assert definite_vr("OB or OW", signed=False) == "OW"


@pytest.mark.parametrize(
    ("tag", "vr"),
    [
        (0x00100010, "PN"),
        (0x00080000, "UL"),
        (0x00090010, "LO"),
        (0x00091010, "UN"),
        (0x60020010, "US"),
        (0x00087777, "UN"),
    ],
)
def test_the_vr_of_implicit_elements(tag: int, vr: str) -> None:
    assert implicit_vr(tag) == vr


@pytest.mark.parametrize("text", ["1.2.3", "1.02.3", "0", "1.2.", "1..2", "9" * 64])
def test_uids_of_real_senders_are_tolerated(text: str) -> None:
    assert is_uid(text)
    assert require_uid("SOPInstanceUID", f" {text}\0 ") == text


@pytest.mark.parametrize("text", [None, "", " \0", "1.2.a", "1.2 3", "9" * 65, "..", ".", "1.2/3", "1,2"])
def test_what_is_no_uid_is_a_missing_identifier(text: str | None) -> None:
    with pytest.raises(MissingIdentifier, match="StudyInstanceUID"):
        require_uid("StudyInstanceUID", text)


def test_uids_are_cleaned_of_padding() -> None:
    assert clean_uid(b"1.2.3\0") == clean_uid("1.2.3 ") == "1.2.3"

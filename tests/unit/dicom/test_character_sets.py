"""Character sets: the byte strings of PS3.5 annexes H to K, and what senders get wrong."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from imaging_services.domain.dicom.charset import charset_of, decode
from imaging_services.domain.dicom.json_model import JsonModel
from imaging_services.domain.dicom.values import text_values

SPECIFIC_CHARACTER_SET, PATIENT_NAME = 0x00080005, 0x00100010


def codes(text: str) -> bytes:
    """Bytes as the Standard prints them: column/row."""
    return bytes(16 * int(column) + int(row) for column, row in (code.split("/") for code in text.split()))


H_3_1 = (
    b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    "Yamada^Tarou=山田^太郎=やまだ^たろう",
)
H_3_2 = (
    codes(
        "13/04 12/15 12/00 13/14 05/14 12/00 13/11 11/03 03/13 01/11 02/04 04/02 03/11 03/03 04/05 04/04 01/11 02/08"
        " 04/10 05/14 01/11 02/04 04/02 04/02 04/00 04/15 03/10 01/11 02/08 04/10 03/13 01/11 02/04 04/02 02/04 06/04"
        " 02/04 05/14 02/04 04/00 01/11 02/08 04/10 05/14 01/11 02/04 04/02 02/04 03/15 02/04 06/13 02/04 02/06 01/11"
        " 02/08 04/10"
    ),
    "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
)
I_2 = (
    codes(
        "04/08 06/15 06/14 06/07 05/14 04/07 06/09 06/12 06/04 06/15 06/14 06/07 03/13 01/11 02/04 02/09 04/03 15/11"
        " 15/03 05/14 01/11 02/04 02/09 04/03 13/01 12/14 13/04 13/07 03/13 01/11 02/04 02/09 04/03 12/08 10/11 05/14"
        " 01/11 02/04 02/09 04/03 11/01 14/06 11/05 11/15"
    ),
    "Hong^Gildong=洪^吉洞=홍^길동",
)
J_1 = (
    bytes.fromhex("57616e675e5869616f446f6e673de78e8b5ee5b08fe4b89c3d"),
    "Wang^XiaoDong=王^小东=",
)
J_3 = (bytes.fromhex("57616e675e5869616f446f6e673dcdf55ed0a1b6ab3d"), "Wang^XiaoDong=王^小东=")
K_2 = (
    bytes.fromhex("5A68616E675E5869616F446F6E673D1B242941D5C55E1B242941D0A1B6AB3D20"),
    "Zhang^XiaoDong=张^小东=",
)
NAMES = [
    (b"\\ISO 2022 IR 87", *H_3_1),
    (b"ISO 2022 IR 13\\ISO 2022 IR 87", *H_3_2),
    (b"\\ISO 2022 IR 149", *I_2),
    (b"ISO_IR 192", *J_1),
    (b"GB18030", *J_3),
    (b"GBK", *J_3),
    (b"\\ISO 2022 IR 58", *K_2),
    (b"ISO_IR 144", "Люкceмбypг".encode("iso8859-5"), "Люкceмбypг"),
    (b"ISO_IR 127", "قباني^لنزار".encode("iso8859-6"), "قباني^لنزار"),
    (b"ISO_IR 138", "שרון^דבורה".encode("iso8859-8"), "שרון^דבורה"),
    (b"ISO_IR 166", "นามสกุล".encode("tis-620"), "นามสกุล"),
    (b"ISO_IR 101", "Wałęsa".encode("iso8859-2"), "Wałęsa"),
    (b"\\ISO 2022 IR 100\\ISO 2022 IR 144", b"A=\x1b-L\xbb\xee\xda^\x1b-A\xfc", "A=Люк^ü"),
]
MISTAKES = [
    # Misspelt terms
    *(
        (term, b"J\xe9r\xf4me", "Jérôme")
        for term in (b"ISO_IR_100", b"ISO IR 100", b"ISO_IR100", b"iso-ir-100", b"100")
    ),
    *((term, b"M\xc3\xbcller", "Müller") for term in (b"ISO-IR 192", b"ISO_IR_192", b"UTF-8", b"utf8", b"IR 192")),
    *((term, b"\xcd\xf5", "王") for term in (b"gb18030", b"GB 18030", b"GB2312", b"\\GB18030", b"ISO 2022 GBK")),
    (b"ISO_2022_IR_6\\ISO_2022_IR_87", *H_3_1),
    (b"\\ISO-IR 87", *H_3_1),
    (b"ISO 8859-1", b"J\xe9r\xf4me", "Jérôme"),
    (b"ISO_8859-15", b"\xa4", "€"),
    # None, though there is more than ASCII
    (b"", "Müller^山田".encode(), "Müller^山田"),
    (b"", b"M\xfcller", "Müller"),
    (b"", H_3_1[0], H_3_1[1]),
    (b"ISO_IR 6", I_2[0], I_2[1]),
    # Wrong ones
    (b"ISO_IR 100", "Müller^山田".encode(), "Müller^山田"),
    (b"ISO_IR 101", "Wałęsa".encode(), "Wałęsa"),
    (b"ISO_IR 192", b"M\xfcller", "Müller"),
    (b"ISO_IR 100", H_3_1[0], H_3_1[1]),
    (b"ISO_IR 100", b"\x93Jo\x94 \x9akoda", "\u201cJo\u201d škoda"),  # Windows-1252
    # Cut by a length limit within a character
    (b"ISO_IR 192", "Müller^山田".encode()[:-1], "Müller^山ç”"),
    (b"GB18030", "王小东".encode("gb18030")[:-1], "王小¶"),
    # Windows' additions to JIS X 0208
    (b"\\ISO 2022 IR 87", b"=\x1b$B|b66\x1b(B^\x1b$B-!\x1b(B", "=髙橋^①"),
]


@pytest.mark.parametrize(("term", "raw", "name"), NAMES + MISTAKES)
def test_names_are_read_as_they_were_meant(term: bytes, raw: bytes, name: str) -> None:
    assert text_values("PN", raw, charset_of(term)) == (name,)


@pytest.mark.parametrize(("term", "raw", "name"), NAMES + MISTAKES)
def test_json_has_the_groups_of_a_name_in_utf_8(term: bytes, raw: bytes, name: str) -> None:
    dataset = Dataset()
    for tag, vr, value in ((SPECIFIC_CHARACTER_SET, "CS", term), (PATIENT_NAME, "PN", raw)):
        dataset[tag] = RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)
    json = JsonModel(io.BytesIO(), lambda _: "").convert(dataset)
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), name.split("="), strict=False)
    assert json["00100010"] == {"vr": "PN", "Value": [{key: text for key, text in groups if text}]}
    assert json["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}


def test_paragraphs_keep_a_set_until_the_end_of_the_line() -> None:
    hangul = "한글".encode("euc_kr")
    raw = b"\x1b$)CThe first line includes " + hangul + b".\r\n\x1b$)CThe second " + hangul + b", too.\r\nThe third"
    text = "The first line includes 한글.\r\nThe second 한글, too.\r\nThe third"  # section I.3
    assert text_values("LT", raw, charset_of(b"\\ISO 2022 IR 149")) == (text,)


def test_a_second_byte_that_looks_like_a_delimiter_is_none() -> None:
    assert text_values("LO", b"\x81\\\\c", charset_of(b"GB18030")) == ("乗", "c")  # section J.4: 05/12 in two bytes


TERMS = sorted({term for term, _, _ in NAMES + MISTAKES} | {b"NONSENSE", b"ISO 2022 IR 159", b"\xff", b"\\\\"})


@given(st.sampled_from(TERMS), st.binary(max_size=40))
def test_any_bytes_are_text_under_any_term(term: bytes, raw: bytes) -> None:
    text = decode(raw, charset_of(term))
    assert "\ufffd" not in text or b"\xef\xbf\xbd" in raw or b"\x84\x31\xa4\x37" in raw
    assert bool(text) is bool(raw) or b"\x1b" in raw
    text.encode("utf-8")


@given(st.binary(max_size=40))
def test_terms_are_any_bytes(term: bytes) -> None:
    assert decode(b"M\xc3\xbcller", charset_of(term))

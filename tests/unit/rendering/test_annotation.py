"""Which words are burned into an image."""

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from imaging_services.adapters.rendering.annotation import annotate
from support.rendering import item

BLACK = Image.new("L", (400, 300))


def drawn(monkeypatch: pytest.MonkeyPatch, header: Dataset, *wanted: str) -> list[str]:
    """The lines that reach the drawing."""
    lines: list[str] = []
    monkeypatch.setattr("PIL.ImageDraw.ImageDraw.text", lambda _draw, _place, line, **_options: lines.append(line))
    annotate(BLACK, header, frozenset(wanted))  # type: ignore[arg-type]
    return lines


def raw(tag: int, vr: str, value: bytes) -> RawDataElement:
    return RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)


def test_patient_and_technique(monkeypatch: pytest.MonkeyPatch) -> None:
    header = item(PatientName="Doe^Jane", PatientID="X1", PatientSex="F", Modality="CT", KVP="120", SliceThickness="")
    assert drawn(monkeypatch, header, "patient") == ["Doe Jane", "ID X1", "F"]
    assert drawn(monkeypatch, header, "technique") == ["CT", "kVp 120"]
    assert drawn(monkeypatch, header, "patient", "technique") == ["Doe Jane", "ID X1", "F", "CT", "kVp 120"]
    assert drawn(monkeypatch, Dataset(), "patient", "technique") == []


@pytest.mark.parametrize(
    ("charset", "name", "expected"),
    [
        (b"ISO_IR 100", "Riesmeier^Jörg".encode("latin-1"), "Riesmeier Jörg"),
        (b"ISO_IR 192", "Yamada^Tarou=山田^太郎".encode(), "Yamada Tarou"),
        (b"ISO_IR 192", "=山田^太郎".encode(), "山田 太郎"),
        (b"", b"Doe^Jane\0", "Doe Jane"),
        (b"", b"A" * 200, "A" * 64),
    ],
)
def test_names_in_their_character_sets(
    monkeypatch: pytest.MonkeyPatch, charset: bytes, name: bytes, expected: str
) -> None:
    header = Dataset({Tag(0x00080005): raw(0x00080005, "CS", charset), Tag(0x00100010): raw(0x00100010, "PN", name)})
    assert drawn(monkeypatch, header, "patient") == [expected]


def test_letters_are_white_and_the_image_given_stays() -> None:
    header = item(PatientName="Doe^Jane")
    shown = np.asarray(annotate(BLACK, header, frozenset({"patient"})))
    assert shown[:30, :100].max() > 200
    assert shown[40:].max() == 0
    assert np.asarray(BLACK).max() == 0
    assert annotate(BLACK, header, frozenset()) is BLACK
    tiny = annotate(Image.new("RGB", (3, 3)), header, frozenset({"patient"}))
    assert tiny.size == (3, 3)

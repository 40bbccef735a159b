"""Text that is burned into an image: who it shows and how it was made (PS3.18 section 8.3.5.1.1)."""

from collections.abc import Collection, Sequence

from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement

from imaging_services.adapters.rendering.presentation import Annotation
from imaging_services.domain.dicom.charset import charset_of, decode

_SPECIFIC_CHARACTER_SET = 0x00080005
_PATIENT = (
    ("", "PatientName"),
    ("ID ", "PatientID"),
    ("born ", "PatientBirthDate"),
    ("", "PatientSex"),
)
_TECHNIQUE = (
    ("", "InstitutionName"),
    ("", "StudyDate"),
    ("", "StudyDescription"),
    ("", "Modality"),
    ("", "SeriesDescription"),
    ("image ", "InstanceNumber"),
    ("kVp ", "KVP"),
    ("mA ", "XRayTubeCurrent"),
    ("TR ", "RepetitionTime"),
    ("TE ", "EchoTime"),
    ("slice mm ", "SliceThickness"),
)
_LONGEST_LINE = 64
_SMALLEST_FONT, _LARGEST_FONT = 10, 28


def annotate(image: Image.Image, header: Dataset, wanted: Collection[Annotation]) -> Image.Image:
    """Patient at the upper left, technique at the lower left; white letters with a black edge.

    The font has Latin letters only; of a name with several representations the alphabetic one is shown.
    """
    patient = _lines(header, _PATIENT) if "patient" in wanted else []
    technique = _lines(header, _TECHNIQUE) if "technique" in wanted else []
    if not patient and not technique:
        return image
    image = image.copy()
    draw = ImageDraw.Draw(image)
    size = min(_LARGEST_FONT, max(_SMALLEST_FONT, image.height // 36))
    font = ImageFont.load_default(size)
    margin, step = max(1, size // 3), round(size * 1.25)
    room = max(1, (image.height - 2 * margin) // step)
    white, black = ((255, 255, 255), (0, 0, 0)) if image.mode == "RGB" else (255, 0)
    below = technique[: max(0, room - len(patient))]
    top = image.height - margin - step * len(below)
    rows = [(margin + step * row, line) for row, line in enumerate(patient[:room])]
    rows += [(top + step * row, line) for row, line in enumerate(below)]
    for y, line in rows:
        draw.text((margin, y), line, fill=white, font=font, stroke_width=1, stroke_fill=black)
    return image


def _lines(header: Dataset, parts: Sequence[tuple[str, str]]) -> list[str]:
    found = ((label, _text(header, keyword)) for label, keyword in parts)
    return [f"{label}{text}"[:_LONGEST_LINE] for label, text in found if text]


def _text(header: Dataset, keyword: str) -> str:
    """The first value of an element, in one line."""
    element = header.get_item(tag_for_keyword(keyword) or 0)
    if element is None or element.value is None:
        return ""
    value = element.value
    if isinstance(element, RawDataElement) and isinstance(value, bytes):
        value = decode(value, charset_of(_raw_charset(header)))
    first = next(filter(None, str(value).split("\\")[0].split("=")), "")
    return " ".join(first.replace("^", " ").replace("\0", " ").split())


def _raw_charset(header: Dataset) -> bytes:
    element = header.get_item(_SPECIFIC_CHARACTER_SET)
    value = None if element is None else element.value
    if isinstance(value, bytes):
        return value
    terms = [value] if isinstance(value, str) else list(value or [])
    return "\\".join(terms).encode("latin-1", "replace")

"""De-identification by the Basic Application Level Confidentiality Profile (PS3.15 annex E). Attributes are changed,
pixels are not: what cannot be made safe that way is refused."""

import uuid

from pydicom import Dataset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from imaging_services.domain.dicom.confidentiality_profile import BASIC_PROFILE, Action
from imaging_services.domain.dicom.transfer_syntaxes import name_of
from imaging_services.domain.errors import CannotTranscode

METHOD = "PS3.15 2026c Basic Application Level Confidentiality Profile"
_CODES = {"113100": "Basic Application Confidentiality Profile", "113101": "Clean Pixel Data Option"}

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NARRATIVES = tuple(_STORAGE + family for family in ("88.", "104.", "9.4."))
"""Reports, encapsulated documents and voice: who it is about is said anywhere in them."""
_OFTEN_BURNED_IN = tuple(_STORAGE + family for family in ("3.", "6.", "7.", "77.1.1.1.", "77.1.2.1.", "77.1.4.1."))
"""Ultrasound, secondary capture and videos, which show the patient's name unless they say that they do not."""
_REPEATING_GROUPS = (0x5000, 0x6000)
_FIXED = {
    "DA": "19000101",
    "TM": "000000",
    "DT": "19000101000000",
    "AS": "000Y",
    "PN": "Anonymous",
    "UR": "urn:anonymous",
    "DS": "0",
    "IS": "0",
}
_WORDS = {"AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT"}
_BINARY_NUMBERS = {"US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT"}


class Deidentifier:
    """One de-identification: a UID gets the same new one wherever it stands, and another one in the next."""

    def __init__(self) -> None:
        self._uids: dict[str, str] = {}

    def uid(self, original: str) -> str:
        """The new UID (PS3.5 annex B.2), which tells nothing of the original one; the Standard's own stay."""
        if name_of(original) != original:
            return original
        return self._uids.setdefault(original, f"2.25.{uuid.uuid4().int}")

    def apply(self, dataset: Dataset) -> None:
        """Change a data set with all values at hand. Raises ``CannotTranscode`` for what has to be refused."""
        burned_in = str(dataset.get("BurnedInAnnotation") or "").strip().upper()
        _require_changeable(str(dataset.get("SOPClassUID") or ""), burned_in)
        self._clean(dataset)
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = METHOD
        dataset.LongitudinalTemporalInformationModified = "REMOVED"
        codes = ["113100", *(["113101"] if burned_in == "NO" else [])]
        dataset.DeidentificationMethodCodeSequence = Sequence(map(_code, codes))

    def _clean(self, dataset: Dataset) -> None:
        for tag in list(dataset.keys()):
            vr = _standard_vr(tag)
            action = BASIC_PROFILE.get(int(tag))
            if vr is None or action is Action.REMOVE:
                del dataset[tag]
            elif action is Action.EMPTY:
                dataset[tag] = _empty(tag, vr)
            elif action is None:
                self._keep(dataset, tag, vr)
            else:
                dataset[tag] = self._replaced(dataset, tag, vr)

    def _keep(self, dataset: Dataset, tag: BaseTag, vr: str) -> None:
        """An attribute of which the table says nothing: of a sequence the items are gone through."""
        encoded = dataset.get_item(tag)
        if vr == "PN":  # a name of an edition that knows more names than the table does
            dataset[tag] = _empty(tag, vr)
        elif vr == "SQ" or encoded is None or encoded.VR == "SQ" or isinstance(encoded.value, Sequence):
            element = dataset[tag]
            if not isinstance(element.value, Sequence):
                del dataset[tag]
                return
            for item in element.value:
                self._clean(item)

    def _replaced(self, dataset: Dataset, tag: BaseTag, vr: str) -> DataElement:
        """The element with a value that is none: words, the first of dates, new UIDs."""
        if vr in _FIXED or vr in _WORDS:
            return DataElement(tag, vr, _FIXED.get(vr, "ANONYMIZED"))
        value = dataset[tag].value
        if vr == "UI":
            values = [value] if isinstance(value, str) else list(value or [])
            return DataElement(tag, vr, [self.uid(str(one)) for one in values if one])
        if vr == "SQ":
            items = value[:1] if isinstance(value, Sequence) else []
            return DataElement(tag, vr, Sequence([self._dummy_item(item) for item in items]))
        if vr in _BINARY_NUMBERS:
            return DataElement(tag, vr, [0] * (len(value) if isinstance(value, MultiValue) else 1))
        return DataElement(tag, vr, bytes(len(value)) if isinstance(value, bytes) else b"")

    def _dummy_item(self, item: Dataset) -> Dataset:
        """An item with the same attributes and nothing of what they said."""
        dummy = Dataset()
        for tag in list(item.keys()):
            vr = _standard_vr(tag)
            if vr is not None and BASIC_PROFILE.get(int(tag)) is not Action.REMOVE:
                dummy[tag] = self._replaced(item, tag, vr)
        return dummy


def _require_changeable(sop_class: str, burned_in: str) -> None:
    if sop_class.startswith(_NARRATIVES):
        raise CannotTranscode(f"anonymize: an instance of {name_of(sop_class)} says anywhere who it is about")
    if burned_in == "YES":
        raise CannotTranscode("anonymize: the pixels of the instance show who it is (Burned In Annotation is YES)")
    if burned_in != "NO" and f"{sop_class}.".startswith(_OFTEN_BURNED_IN):
        raise CannotTranscode(
            f"anonymize: the pixels of {name_of(sop_class)} often show who it is, and Burned In Annotation is not NO"
        )


def _standard_vr(tag: BaseTag) -> str | None:
    """The VR of an attribute that the Standard has; None for others, which may hold anything, and for curves and
    overlays."""
    if tag.is_private or tag.group & 0xFF00 in _REPEATING_GROUPS:
        return None
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return None
    return vr.split(" or ")[0]


def _empty(tag: BaseTag, vr: str) -> DataElement:
    return DataElement(tag, vr, Sequence() if vr == "SQ" else None)


def _code(value: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", _CODES[value]
    return item

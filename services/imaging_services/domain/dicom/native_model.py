"""The Native DICOM Model in XML, made from the DICOM JSON Model (PS3.19 annex A.1, PS3.18 section F.3)."""

from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring  # writes only: nothing foreign is parsed

from pydicom.datadict import keyword_for_tag

from imaging_services.domain.manifest.query import DicomJson

_NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
_FORBIDDEN = {code: None for code in range(32) if chr(code) not in "\t\n\r"}
_NAME_PARTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")


def native_dicom_model(document: DicomJson) -> bytes:
    """One instance or search result as an XML document."""
    root = Element("NativeDicomModel", {"xmlns": _NAMESPACE, "xml:space": "preserve"})
    _attributes(root, document)
    encoded: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return encoded.replace(b"\r", b"&#13;")  # XML parsers read a plain CR as LF


def _attributes(parent: Element, document: DicomJson) -> None:
    for tag, attribute in document.items():
        names = {"tag": tag, "vr": attribute["vr"]}
        keyword = keyword_for_tag(int(tag, 16))
        if keyword:
            names["keyword"] = keyword
        creator = _private_creator(document, tag)
        if creator:
            names["privateCreator"] = creator
        element = SubElement(parent, "DicomAttribute", names)
        if "BulkDataURI" in attribute:
            SubElement(element, "BulkData", {"uri": attribute["BulkDataURI"]})
        elif "InlineBinary" in attribute:
            SubElement(element, "InlineBinary").text = attribute["InlineBinary"]
        for number, value in enumerate(attribute.get("Value", ()), 1):
            _value(element, attribute["vr"], str(number), value)


def _private_creator(document: DicomJson, tag: str) -> str | None:
    """Who defines a private attribute: the value that reserves its block (PS3.5 section 7.8.1, PS3.19 annex A.1)."""
    if int(tag[3], 16) % 2 == 0 or tag[4:6] == "00":
        return None
    values = document.get(f"{tag[:4]}00{tag[4:6]}", {}).get("Value") or [None]
    return _text(values[0]) if isinstance(values[0], str) else None


def _value(element: Element, vr: str, number: str, value: Any) -> None:
    if vr == "SQ":
        _attributes(SubElement(element, "Item", {"number": number}), value)
    elif vr == "PN":
        _person_name(SubElement(element, "PersonName", {"number": number}), value or {})
    else:
        SubElement(element, "Value", {"number": number}).text = "" if value is None else _text(value)


def _person_name(element: Element, groups: dict[str, str]) -> None:
    for group, name in groups.items():
        parts = SubElement(element, group)
        for part, text in zip(_NAME_PARTS, name.split("^"), strict=False):
            if text:
                SubElement(parts, part).text = _text(text)


def _text(value: Any) -> str:
    return str(value).translate(_FORBIDDEN)

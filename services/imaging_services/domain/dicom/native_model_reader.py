"""Reading the Native DICOM Model in XML (PS3.19 annex A.1) as the DICOM JSON Model, which has the same content.

The XML comes from outside: a document type, and with it every entity, is refused, and the depth is bounded.
"""

from collections.abc import Iterable
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder  # holds what expat below has parsed
from xml.parsers import expat

from imaging_services.domain.dicom.dictionary import definite_vr, implicit_vr
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.query import DicomJson

MAX_DEPTH = 300
"""Deepest nesting of elements; an item of a sequence takes two."""

_NAME_PARTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")


def read_native_model(content: bytes) -> DicomJson:
    """One instance. Raises ``InvalidInput``."""
    root = _parsed(content)
    if root.tag != "NativeDicomModel":
        raise InvalidInput(f"the XML document is a {root.tag[:60]}, expected a NativeDicomModel")
    return _attributes(root)


def _parsed(content: bytes) -> Element:
    builder, depth = TreeBuilder(), 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise InvalidInput(f"the XML document is nested deeper than {MAX_DEPTH} elements")
        builder.start(_local(name), attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_local(name))

    def doctype(*_: object) -> None:
        raise InvalidInput("the XML document has a document type declaration, which is refused")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, LookupError, ValueError) as error:  # the latter two: an encoding that expat has not
        raise InvalidInput(f"the XML document cannot be read: {error}") from None
    return builder.close()


def _local(name: str) -> str:
    return name.rpartition(":")[2]


def _attributes(parent: Element) -> DicomJson:
    found: DicomJson = {}
    for element in parent:
        if element.tag == "DicomAttribute":
            tag, attribute = _attribute(element)
            creator = element.get("privateCreator")
            found[_placed(tag, creator, found) if creator and tag[4:6] == "00" else tag] = attribute
    return found


def _placed(tag: str, creator: str, found: DicomJson) -> str:
    """The tag of a private attribute, which comes without its block: that of its creator, or the next one that is free
    (PS3.5 section 7.8.1)."""
    group = tag[:4]
    for block in range(0x10, 0x100):
        known = found.setdefault(f"{group}{block:04X}", {"vr": "LO", "Value": [creator]})
        if known.get("Value") == [creator]:
            return f"{group}{block:02X}{tag[6:]}"
    raise InvalidInput(f"group {group} has more private creators than blocks")


def _attribute(element: Element) -> tuple[str, dict[str, Any]]:
    tag = element.get("tag", "").upper()
    try:
        vr = element.get("vr") or definite_vr(implicit_vr(int(tag, 16)), signed=False)
    except ValueError:
        raise InvalidInput(f"DicomAttribute with tag {tag[:20]!r}, which is none") from None
    attribute: dict[str, Any] = {"vr": vr}
    for child in element:
        if child.tag == "BulkData":
            attribute["BulkDataURI"] = child.get("uri") or child.get("uuid") or ""
        elif child.tag == "InlineBinary":
            attribute["InlineBinary"] = "".join((child.text or "").split())
    values = _values(vr, element)
    if values:
        attribute["Value"] = values
    return tag, attribute


def _values(vr: str, element: Element) -> list[Any]:
    """The values in order of their numbers; numbers that are left out are empty values."""
    wanted = {"SQ": "Item", "PN": "PersonName"}.get(vr, "Value")
    numbered = dict(_numbered(child for child in element if child.tag == wanted))
    if not numbered:
        return []
    if max(numbered) > 10 * len(numbered) + 1000:
        raise InvalidInput("the numbers of values have too large gaps")
    children = [numbered.get(number) for number in range(1, max(numbered) + 1)]
    if vr == "SQ":
        return [{} if child is None else _attributes(child) for child in children]
    if vr == "PN":
        return [None if child is None else _person_name(child) for child in children]
    return [None if child is None else child.text or "" for child in children]


def _numbered(children: Iterable[Element]) -> Iterable[tuple[int, Element]]:
    for position, child in enumerate(children, 1):
        number = child.get("number", str(position))
        if not number.isdecimal() or len(number) > 8 or int(number) == 0:
            raise InvalidInput(f"the number of a value is {number[:20]!r}")
        yield int(number), child


def _person_name(element: Element) -> dict[str, str]:
    groups = {}
    for group in element:
        parts = {part.tag: part.text or "" for part in group}
        groups[group.tag] = "^".join(parts.get(name, "") for name in _NAME_PARTS).rstrip("^")
    return groups

"""Reading a study header document, written from the format's description and not from the product's code."""

import gzip
import re
import xml.etree.ElementTree as ET
from typing import Any

EXCLUDED = "excluded"
_ENTITIES = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'"), ("&amp;", "&")]

DataSet = dict[str, tuple[str, Any]]
"""VR and value by tag: text, a list of items, or ``EXCLUDED``."""


def read_study_xml(packed: bytes) -> tuple[str, dict[str, dict[str, dict[str, Any]]]]:
    """Study UID; by series and instance UID the instance's XML attributes and, as ``header``, its data set."""
    raw = gzip.decompress(packed)
    assert raw.startswith(b"<?xml")
    root = ET.fromstring(raw)
    assert not any(each.tail or (each.text and each.tag != "Attribute") for each in root.iter()), (
        "text between elements"
    )
    assert root.tag == "ClearCanvasStudyXml"
    study = root.find("Study")
    assert study is not None
    return study.attrib["UID"], {series.attrib["UID"]: _series(series) for series in study.findall("Series")}


def _series(series: ET.Element) -> dict[str, dict[str, Any]]:
    children = list(series)
    assert children[0].tag == "BaseInstance"
    bases = list(children[0])
    assert len(bases) <= 1
    assert len(children) > 2 or not bases, "a series of one instance has an empty base"
    base = _data_set(bases[0], {}) if bases else {}
    if bases:
        assert bases[0].attrib["UID"] == ""
    found = {}
    for instance in children[1:]:
        assert instance.tag == "Instance"
        tags = [child.attrib["Tag"] for child in instance]
        assert tags == sorted(set(tags)), "each tag once, ascending"
        found[instance.attrib["UID"]] = {**instance.attrib, "header": _data_set(instance, base)}
    return found


def _data_set(element: ET.Element, base: DataSet) -> DataSet:
    result = dict(base)
    for child in element:
        tag, vr = child.attrib["Tag"], child.attrib["VR"]
        assert re.fullmatch("[0-9A-F]{8}", tag), tag
        if child.tag == "EmptyAttribute":
            del result[tag]
        elif child.tag == "ExcludedAttribute":
            result[tag] = vr, EXCLUDED
        else:
            assert child.tag == "Attribute", child.tag
            result[tag] = vr, [_data_set(item, {}) for item in child] if vr == "SQ" else unescaped(child.text or "")
    return result


def unescaped(text: str) -> str:
    """The second escaping taken back: references to characters, then the five entities, ``&amp;`` last."""
    text = re.sub(r"&#x([0-9A-Fa-f]+);", lambda found: chr(int(found[1], 16)), text)
    for name, character in _ENTITIES:
        text = text.replace(name, character)
    return text

"""Documents to be wrapped into DICOM: what the metadata may leave out, since the document's media type says it."""

from dataclasses import dataclass
from typing import Any

from imaging_services.domain.manifest.query import DicomJson

ENCAPSULATED_DOCUMENT = "00420011"
_MIME_TYPE = "00420012"
_DOCUMENT_LENGTH = "00420015"
_SOP_CLASS = "00080016"

# PS3.3 section A.45, A.85: the SOP classes of encapsulated documents.
_CDA = "1.2.840.10008.5.1.4.1.1.104.2"
_STL = "1.2.840.10008.5.1.4.1.1.104.3"
_SOP_CLASSES = {
    "application/pdf": "1.2.840.10008.5.1.4.1.1.104.1",
    "text/xml": _CDA,
    "application/xml": _CDA,
    "application/hl7-cda+xml": _CDA,
    "model/stl": _STL,
    "application/sla": _STL,
    "model/obj": "1.2.840.10008.5.1.4.1.1.104.4",
    "model/mtl": "1.2.840.10008.5.1.4.1.1.104.5",
}
_MIME_TYPES = {_CDA: "text/XML", _STL: "model/stl"}
"""What the SOP class has for MIME Type of Encapsulated Document, where other names of the type are in use."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A model with what was added to it: tags, and what they were set to."""

    model: DicomJson
    added: dict[str, str]


def complete_document(model: DicomJson, media_type: str, length: int) -> Completed:
    """Add SOP Class UID, MIME type and length of the document where the metadata does not have them."""
    sop_class = _first(model.get(_SOP_CLASS)) or _SOP_CLASSES.get(media_type)
    mime_type = _MIME_TYPES.get(str(sop_class), media_type)
    offered: dict[str, tuple[str, Any]] = {_MIME_TYPE: ("LO", mime_type), _DOCUMENT_LENGTH: ("UL", length)}
    if sop_class:
        offered[_SOP_CLASS] = ("UI", sop_class)
    missing = {tag: value for tag, value in offered.items() if _first(model.get(tag)) is None}
    added = {tag: {"vr": vr, "Value": [value]} for tag, (vr, value) in missing.items()}
    return Completed({**model, **added}, {tag: f"set to {value}" for tag, (_, value) in missing.items()})


def _first(attribute: Any) -> Any:
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    return values[0] if isinstance(values, list) and values else None

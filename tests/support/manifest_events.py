"""``ImageStoredEvent`` as a producer makes them, for tests of the manifest."""

import hashlib
import json
from typing import Any

from imaging_services.domain.events.envelope import IMAGE_STORED, CloudEvent, event_id

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"

_VRS = {
    "0020000D": "UI", "0020000E": "UI", "00080018": "UI", "00080016": "UI", "00100010": "PN", "00100020": "LO",
    "00080020": "DA", "00080030": "TM", "00080060": "CS", "00200011": "IS", "00200013": "IS",
}  # fmt: skip


def element(tag: str, value: Any, vr: str | None = None) -> dict[str, Any]:
    """An element of an event; a list gives several values, a list of dictionaries by tag the items of a sequence."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        items = [[element(own, each) for own, each in item.items()] for item in value]
        return {"group": tag[:4], "element": tag[4:], "vr": "SQ", "value": None, "items": items}
    values = value if isinstance(value, list) else None
    first = values[0] if values else value
    return {"group": tag[:4], "element": tag[4:], "vr": vr or _VRS.get(tag, "LO"), "value": first, "values": values}


def stored(
    study: str,
    series: str,
    instance: str,
    *,
    content: str = "first",
    provider: str = "north",
    sop_class: str = CT,
    attributes: dict[str, Any] | None = None,
    store: dict[str, Any] | None = None,
) -> CloudEvent:
    """An event for one instance; ``content`` stands for its bytes, ``attributes`` adds elements by tag."""
    digest = hashlib.sha256(f"{study}/{series}/{instance}/{content}".encode()).hexdigest()
    header = {"00080016": sop_class, "00080018": instance, "0020000D": study, "0020000E": series, **(attributes or {})}
    where: dict[str, Any] = {
        "provider": provider,
        "bucketName": f"{provider}-images",
        "objectName": f"{digest}.dcm",
        "wadoInternalEndpoint": f"http://{provider}.internal/wado-rs",
        "wadoExternalEndpoint": f"https://{provider}.example.org/wado-rs",
        "size": 1000,
        "digest": digest,
        "pixelDataOffset": 600,
        **(store or {}),
    }
    elements = [element(tag, value) for tag, value in sorted(header.items())]
    data = {"image": {"transferSyntaxUID": EXPLICIT_LITTLE, "elements": elements}, "store": where}
    identity = event_id(IMAGE_STORED, provider, study, series, instance, digest)
    return CloudEvent(IMAGE_STORED, "test.local", identity, json.dumps(data).encode())

"""Study revisions as the event processor announces them."""

from typing import Any

import orjson

from imaging_services.domain.events.envelope import STUDY_REVISION, CloudEvent, event_id

STUDY_UID = "1.2.276.0.7230010.3.1.2.1"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
WADO = "https://north.example.org/wado-rs"


def element(tag: str, vr: str, value: str | None) -> dict[str, Any]:
    """An attribute; ``tag`` is eight hex digits."""
    return {"group": tag[:4], "element": tag[4:], "vr": vr, "value": value}


STUDY_ATTRIBUTES = [
    element("00080030", "TM", "101530.25"),
    element("00080050", "SH", "ACC-77"),
    element("00080090", "PN", "House^Gregory^^Dr"),
    element("00081030", "LO", "Thorax"),
    element("00100010", "PN", "Müller^Eva^Maria^Frau"),
    element("00100020", "LO", "PID-4711"),
    element("00100021", "LO", "NORTH"),
    element("00100030", "DA", "19710203"),
    element("00100040", "CS", "F"),
]


def series(
    uid: str = f"{STUDY_UID}.1",
    *,
    provider: str = "north",
    modality: str | None = "CT",
    instances: int = 2,
    study_uid: str = STUDY_UID,
    **members: Any,
) -> dict[str, Any]:
    """A series with instances numbered from 1."""
    return {
        "seriesInstanceUID": uid,
        "modality": modality,
        "providerName": provider,
        "number": 1,
        "endpoint": f"{WADO}/studies/{study_uid}/series/{uid}",
        "attributes": [element("0008103E", "LO", "axial")],
        "instances": [
            {"sopInstanceUID": f"{uid}.{number}", "sopClassUID": CT_IMAGE, "number": number}
            for number in range(1, instances + 1)
        ],
    } | members


def revision(
    number: int | None = 0, *all_series: dict[str, Any], study_uid: str = STUDY_UID, **study: Any
) -> dict[str, Any]:
    """The data of a StudyRevisionEvent; without series it has one of CT."""
    return {
        "revision": number,
        "study": {
            "studyInstanceUID": study_uid,
            "studyDate": "20240229",
            "attributes": STUDY_ATTRIBUTES,
            "series": list(all_series) or [series()],
        }
        | study,
        "changeSet": {"additions": [], "deletions": [], "modifications": []},
    }


def revision_event(data: dict[str, Any]) -> CloudEvent:
    """The event that carries the data."""
    return CloudEvent(
        type=STUDY_REVISION,
        source="processor.test",
        id=event_id(STUDY_REVISION, data["study"]["studyInstanceUID"], data.get("revision")),
        data=orjson.dumps(data),
    )

"""Which instances a C-MOVE or C-GET asks for (PS3.4 section C.4.2.2): identifier → instances of the manifest."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from imaging_services.apps.dimse_ingestion.identifiers import Key
from imaging_services.domain.errors import DataSetMismatch, InvalidInput
from imaging_services.domain.manifest.attributes import (
    PATIENT_ID,
    SERIES_INSTANCE_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
)
from imaging_services.domain.manifest.query import InstanceLocation, Level, Query, Scope
from imaging_services.domain.ports import ManifestQuery

_QUERY_RETRIEVE_LEVEL = 0x00080052
_ROOT = "1.2.840.10008.5.1.4.1.2."
_PATIENT_ROOT = (Level.PATIENT, Level.STUDY, Level.SERIES, Level.IMAGE)
_STUDY_ROOT = (Level.STUDY, Level.SERIES, Level.IMAGE)
_PATIENT_STUDY_ONLY = (Level.PATIENT, Level.STUDY)
_LEVELS = {
    _ROOT + model + operation: levels
    for model, levels in (("1", _PATIENT_ROOT), ("2", _STUDY_ROOT), ("3", _PATIENT_STUDY_ONLY))
    for operation in (".2", ".3")
}
MOVE_CLASSES = frozenset(uid for uid in _LEVELS if uid.endswith(".2"))
"""Patient Root, Study Root, and Patient/Study Only Query/Retrieve Information Model - MOVE."""
GET_CLASSES = frozenset(uid for uid in _LEVELS if uid.endswith(".3"))
"""The same three - GET."""

_UNIQUE_KEYS = {
    Level.PATIENT: PATIENT_ID,
    Level.STUDY: STUDY_INSTANCE_UID,
    Level.SERIES: SERIES_INSTANCE_UID,
    Level.IMAGE: SOP_INSTANCE_UID,
}
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked for: unique keys of its level, and one of each level above, by tag; without those that a relational
    retrieve leaves out."""

    level: Level
    keys: dict[str, tuple[str, ...]]


def accept_extended(proposed: Mapping[str, bytes]) -> dict[str, bytes]:
    """The answer to extended negotiation of C-MOVE and C-GET (PS3.4 section C.5.2.1), by SOP class: relational retrieve
    is supported, conversion of enhanced multi-frame images is not."""
    return {
        sop_class: bytes([*(1 & byte for byte in information[:1]), *(0 for _ in information[1:])])
        for sop_class, information in proposed.items()
        if sop_class in _LEVELS
    }


def read_selection(sop_class_uid: str, keys: Sequence[Key], extended: bytes = b"") -> Selection:
    """Translate an identifier; ``extended`` is what has been negotiated. Raises ``InvalidInput`` for one without level,
    ``DataSetMismatch`` (A900H) for a level that the SOP class does not have and for a unique key that is missing or no
    single value (or list, at its level)."""
    values = {f"{key.tag:08X}": key.values for key in keys}
    text = next(iter(values.get(f"{_QUERY_RETRIEVE_LEVEL:08X}", ())), None)
    if text is None:
        raise InvalidInput("the identifier has no Query/Retrieve Level (0008,0052)")
    levels = _LEVELS.get(sop_class_uid, ())
    if text not in levels:
        raise DataSetMismatch(f"Query/Retrieve Level {text!r} is none of {', '.join(levels)}")
    level = Level(text)
    needed = levels[: levels.index(level) + 1]
    if extended[:1] == b"\x01":
        needed = tuple(one for one in needed if one is level or any(values.get(_UNIQUE_KEYS[one], ())))
    return Selection(level, {_UNIQUE_KEYS[one]: _unique(values, one, level) for one in needed})


def _unique(values: dict[str, tuple[str, ...]], level: Level, asked: Level) -> tuple[str, ...]:
    tag = _UNIQUE_KEYS[level]
    found = tuple(value for value in values.get(tag, ()) if value)
    several = level is asked and level is not Level.PATIENT
    if not found or (len(found) > 1 and not several) or any("*" in value or "?" in value for value in found):
        wanted = "the UIDs" if several else "a single value"
        raise DataSetMismatch(f"a retrieve at level {asked.value} needs {wanted} of ({tag[:4]},{tag[4:]})")
    return found


async def select(manifest: ManifestQuery, selection: Selection, provider: str | None) -> list[InstanceLocation]:
    """The instances of one storage space, study after study; each once. Raises as the manifest does."""
    found: dict[str, InstanceLocation] = {}
    series, instances = _wanted(selection, SERIES_INSTANCE_UID), _wanted(selection, SOP_INSTANCE_UID)
    async for study in _studies(manifest, selection, provider):
        for location in await manifest.locate(_scope(study, selection, provider)):
            asked = series is None or location.series_instance_uid in series
            if asked and (instances is None or location.sop_instance_uid in instances):
                found.setdefault(location.sop_instance_uid, location)
    return list(found.values())


async def _studies(manifest: ManifestQuery, selection: Selection, provider: str | None) -> AsyncIterator[str]:
    """Study by study. Where a patient is named, only that patient's: a study of another one is not sent."""
    if PATIENT_ID not in selection.keys and STUDY_INSTANCE_UID in selection.keys:
        for study in dict.fromkeys(selection.keys[STUDY_INSTANCE_UID]):
            yield study
        return
    filters = dict(selection.keys)
    if STUDY_INSTANCE_UID in filters:  # which is enough to find it by, together with the patient
        filters = {tag: filters[tag] for tag in (PATIENT_ID, STUDY_INSTANCE_UID)}
    offset = 0
    while True:
        query = Query(level=Level.STUDY, provider=provider, filters=filters, limit=_PAGE, offset=offset)
        page = await manifest.search(query)
        for match in page:
            yield match[STUDY_INSTANCE_UID]["Value"][0]
        if len(page) < _PAGE:
            return
        offset += _PAGE


def _scope(study: str, selection: Selection, provider: str | None) -> Scope:
    """One series or instance is asked for itself; several are picked from what is there of the level above."""
    series = selection.keys.get(SERIES_INSTANCE_UID, ())
    instances = selection.keys.get(SOP_INSTANCE_UID, ())
    return Scope(
        study,
        series[0] if len(series) == 1 else None,
        instances[0] if len(instances) == 1 else None,
        provider,
    )


def _wanted(selection: Selection, tag: str) -> frozenset[str] | None:
    """As a set, as a list may have thousands, and be looked into as often; None when any will do."""
    values = selection.keys.get(tag)
    return None if values is None else frozenset(values)

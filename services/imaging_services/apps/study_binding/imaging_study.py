"""A study revision as a FHIR R4 ImagingStudy. Pure: the same revision gives the same resource, ids included."""

from collections.abc import Sequence
from datetime import tzinfo

from imaging_services.apps.study_binding.endpoints import Endpoints
from imaging_services.apps.study_binding.fhir_values import (
    Attributes,
    Json,
    coding,
    fhir_code,
    fhir_date_time,
    fhir_text,
    fhir_unsigned,
    offset_zone,
    without_none,
)
from imaging_services.apps.study_binding.mapping import Mapping
from imaging_services.apps.study_binding.people import (
    IDENTIFIER_TYPE,
    contained_patient,
    referrer,
    subject_reference,
)
from imaging_services.domain.dicom.uids import clean_uid, require_uid
from imaging_services.domain.events.payloads import (
    RevisionInstance,
    RevisionSeries,
    RevisionStudy,
    StudyRevision,
)

STUDY_UID_SYSTEM = "urn:dicom:uid"
REVISION_EXTENSION = "http://imaging-ingestion.alvearie.org/fhir/StructureDefinition/study-revision"

_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_STUDY_DATE, _STUDY_TIME = 0x00080020, 0x00080030
_SERIES_DATE, _SERIES_TIME = 0x00080021, 0x00080031
_ACCESSION_NUMBER, _MODALITIES_IN_STUDY = 0x00080050, 0x00080061
_TIMEZONE_OFFSET_FROM_UTC = 0x00080201
_STUDY_DESCRIPTION, _SERIES_DESCRIPTION = 0x00081030, 0x0008103E
_STEP_START_DATE, _STEP_START_TIME = 0x00400244, 0x00400245


def identifier_value(study_instance_uid: str) -> str:
    """The study UID as FHIR identifies it, beside the system ``urn:dicom:uid`` (FHIR R4 ImagingStudy, 6.5.4)."""
    return f"urn:oid:{study_instance_uid}"


def imaging_study(data: StudyRevision, mapping: Mapping | None = None) -> Json:
    """The ImagingStudy of a revision, without an ``id``.

    Raises ``MissingIdentifier`` when a UID of study, series or instance is none.
    """
    mapping = mapping or Mapping()
    study = data.study
    attributes = Attributes(study.attributes)
    zone = offset_zone(attributes.text(_TIMEZONE_OFFSET_FROM_UTC)) or mapping.time_zone
    started = fhir_date_time(study.studyDate or attributes.text(_STUDY_DATE), attributes.text(_STUDY_TIME), zone)
    series = [item for item in study.series if item.instances]  # a series without instances has been deleted
    endpoints = Endpoints(require_uid("Study Instance UID", study.studyInstanceUID), mapping.wado_base)
    described = [_series(item, endpoints, zone) for item in series]
    patient = contained_patient(attributes, mapping)
    return without_none(
        {
            "resourceType": "ImagingStudy",
            "contained": ([patient] if patient else []) + endpoints.contained or None,
            "extension": _revision_extension(data.revision),
            "identifier": _identifiers(study, attributes, mapping),
            "status": "available" if series else "cancelled",
            "modality": _modalities(series, attributes) or None,
            "subject": subject_reference(attributes, mapping, contained=patient is not None),
            "started": started,
            "referrer": referrer(attributes),
            "endpoint": endpoints.of_study or None,
            "numberOfSeries": len(series),
            "numberOfInstances": sum(len(item.instances) for item in series),
            "description": fhir_text(attributes.text(_STUDY_DESCRIPTION)),
            "series": described or None,
        }
    )


def revision_of(resource: Json) -> int | None:
    """The revision that a resource records; None when it was not written by this product."""
    for extension in resource.get("extension") or []:
        if isinstance(extension, dict) and extension.get("url") == REVISION_EXTENSION:
            value = extension.get("valueUnsignedInt")
            return value if isinstance(value, int) else None
    return None


def _series(series: RevisionSeries, endpoints: Endpoints, zone: tzinfo | None) -> Json:
    attributes = Attributes(series.attributes)
    zone = offset_zone(attributes.text(_TIMEZONE_OFFSET_FROM_UTC)) or zone
    started = fhir_date_time(attributes.text(_SERIES_DATE), attributes.text(_SERIES_TIME), zone)
    if started is None:
        started = fhir_date_time(attributes.text(_STEP_START_DATE), attributes.text(_STEP_START_TIME), zone)
    return without_none(
        {
            "uid": require_uid("Series Instance UID", series.seriesInstanceUID),
            "number": fhir_unsigned(series.number),
            "modality": coding(_DCM, fhir_code(series.modality)),
            "description": fhir_text(attributes.text(_SERIES_DESCRIPTION)),
            "numberOfInstances": len(series.instances),
            "endpoint": endpoints.of_series(series),
            "started": started,
            "instance": [_instance(instance) for instance in series.instances],
        }
    )


def _instance(instance: RevisionInstance) -> Json:
    sop_class_uid = clean_uid(instance.sopClassUID or "")
    return without_none(
        {
            "uid": require_uid("SOP Instance UID", instance.sopInstanceUID),
            "sopClass": coding("urn:ietf:rfc:3986", f"urn:oid:{sop_class_uid}" if sop_class_uid else None),
            "number": fhir_unsigned(instance.number),
        }
    )


def _identifiers(study: RevisionStudy, attributes: Attributes, mapping: Mapping) -> list[Json]:
    study_uid = require_uid("Study Instance UID", study.studyInstanceUID)
    identifiers: list[Json] = [{"use": "official", "system": STUDY_UID_SYSTEM, "value": identifier_value(study_uid)}]
    accession_number = fhir_text(attributes.text(_ACCESSION_NUMBER))
    if accession_number:
        identifiers.append(
            without_none(
                {
                    "type": {"coding": [{"system": IDENTIFIER_TYPE, "code": "ACSN"}]},
                    "system": mapping.accession_number_system or None,
                    "value": accession_number,
                }
            )
        )
    return identifiers


def _modalities(series: Sequence[RevisionSeries], attributes: Attributes) -> list[Json]:
    """Each modality of the series once, in their order; the study's own list serves while no series names one."""
    codes = [fhir_code(item.modality) for item in series]
    if not any(codes):
        codes = [fhir_code(value) for value in attributes.values(_MODALITIES_IN_STUDY)]
    return [{"system": _DCM, "code": code} for code in dict.fromkeys(codes) if code]


def _revision_extension(revision: int | None) -> list[Json] | None:
    return None if revision is None else [{"url": REVISION_EXTENSION, "valueUnsignedInt": revision}]

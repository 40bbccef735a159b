"""The people of a study as FHIR R4 says them: patient and referrer."""

from imaging_services.apps.study_binding.fhir_values import (
    Attributes,
    Json,
    absent,
    fhir_date,
    fhir_text,
    human_name,
    name_parts,
    without_none,
)
from imaging_services.apps.study_binding.mapping import Mapping

IDENTIFIER_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0203"

_REFERRING_PHYSICIAN_NAME = 0x00080090
_PATIENT_NAME, _PATIENT_ID, _ISSUER_OF_PATIENT_ID = 0x00100010, 0x00100020, 0x00100021
_PATIENT_BIRTH_DATE, _PATIENT_SEX = 0x00100030, 0x00100040
_GENDER = {"M": "male", "F": "female", "O": "other"}


def subject_reference(attributes: Attributes, mapping: Mapping, *, contained: bool) -> Json:
    """The patient as reference by identifier; a study without any says so, since subject is mandatory."""
    identifier = _patient_identifier(attributes, mapping)
    name = human_name(attributes.text(_PATIENT_NAME))
    return without_none(
        {
            "extension": None if identifier or name or contained else [absent()],
            "reference": "#patient" if contained else None,
            "type": "Patient",
            "identifier": identifier,
            "display": name,
        }
    )


def contained_patient(attributes: Attributes, mapping: Mapping) -> Json | None:
    """A Patient with what the images say of name, birth date and sex, where the site wants one."""
    if not mapping.contained_patient:
        return None
    identifier = _patient_identifier(attributes, mapping)
    name = name_parts(attributes.text(_PATIENT_NAME))
    birth_date = fhir_date(attributes.text(_PATIENT_BIRTH_DATE))
    said = without_none(
        {
            "identifier": [identifier] if identifier else None,
            "name": [name] if name else None,
            "gender": _GENDER.get((attributes.text(_PATIENT_SEX) or "").strip().upper()),
            "birthDate": birth_date.isoformat() if birth_date else None,
        }
    )
    return {"resourceType": "Patient", "id": "patient", **said} if said else None


def referrer(attributes: Attributes) -> Json | None:
    """Referring Physician's Name (0008,0090) as a reference that only names."""
    name = human_name(attributes.text(_REFERRING_PHYSICIAN_NAME))
    return {"display": name} if name else None


def identifying_values(attributes: Attributes) -> list[str]:
    """What must not reach a log: name and id of the patient, in every form in which they are sent."""
    raw = attributes.text(_PATIENT_NAME)
    candidates = [raw, human_name(raw), attributes.text(_PATIENT_ID)]
    return [value for value in candidates if value]


def _patient_identifier(attributes: Attributes, mapping: Mapping) -> Json | None:
    patient_id = fhir_text(attributes.text(_PATIENT_ID))
    if not patient_id:
        return None
    issuer = fhir_text(attributes.text(_ISSUER_OF_PATIENT_ID))
    return without_none(
        {
            "type": {"coding": [{"system": IDENTIFIER_TYPE, "code": "MR"}]},
            "system": mapping.patient_id_system or None,
            "value": patient_id,
            "assigner": {"display": issuer} if issuer else None,
        }
    )

"""The mapping of a study revision to a FHIR R4 ImagingStudy."""

import json
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fhir.resources.R4B.imagingstudy import ImagingStudy
from hypothesis import given
from hypothesis import strategies as st

from imaging_services.apps.study_binding.imaging_study import REVISION_EXTENSION, imaging_study, revision_of
from imaging_services.apps.study_binding.mapping import Mapping
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.events.payloads import StudyRevision
from support.revisions import CT_IMAGE, STUDY_UID, WADO, element, revision, series

UNKNOWN = {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}


def mapped(data: dict[str, Any], mapping: Mapping | None = None) -> dict[str, Any]:
    """The resource, after a check against the model. R4 and R4B are the same for ImagingStudy and Endpoint, except
    that R4B knows more resource types a reference may name."""
    resource = imaging_study(StudyRevision.model_validate(data), mapping)
    text = json.dumps(resource)
    ImagingStudy.model_validate_json(text)
    contained = [item["id"] for item in resource.get("contained", [])]
    assert len(contained) == len(set(contained))
    for contained_id in contained:  # rule dom-3: contained resources are referenced
        assert f'"#{contained_id}"' in text
    return resource


def test_a_whole_study() -> None:
    resource = mapped(revision(3))
    assert resource == {
        "resourceType": "ImagingStudy",
        "contained": resource["contained"],
        "extension": [{"url": REVISION_EXTENSION, "valueUnsignedInt": 3}],
        "identifier": [
            {"use": "official", "system": "urn:dicom:uid", "value": f"urn:oid:{STUDY_UID}"},
            {
                "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]},
                "value": "ACC-77",
            },
        ],
        "status": "available",
        "modality": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"}],
        "subject": {
            "type": "Patient",
            "identifier": {
                "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]},
                "value": "PID-4711",
                "assigner": {"display": "NORTH"},
            },
            "display": "Frau Eva Maria Müller",
        },
        "started": "2024-02-29",
        "referrer": {"display": "Dr Gregory House"},
        "endpoint": resource["endpoint"],
        "numberOfSeries": 1,
        "numberOfInstances": 2,
        "description": "Thorax",
        "series": [
            {
                "uid": f"{STUDY_UID}.1",
                "number": 1,
                "modality": {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"},
                "description": "axial",
                "numberOfInstances": 2,
                "endpoint": resource["series"][0]["endpoint"],
                "instance": [
                    {
                        "uid": f"{STUDY_UID}.1.{number}",
                        "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{CT_IMAGE}"},
                        "number": number,
                    }
                    for number in (1, 2)
                ],
            }
        ],
    }
    by_id = {f"#{item['id']}": item for item in resource["contained"]}
    of_series = by_id[resource["series"][0]["endpoint"][0]["reference"]]
    assert of_series == {
        "resourceType": "Endpoint",
        "id": of_series["id"],
        "status": "active",
        "connectionType": {
            "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type",
            "code": "dicom-wado-rs",
        },
        "payloadType": [{"text": "DICOM WADO-RS"}],
        "payloadMimeType": ["application/dicom"],
        "address": f"{WADO}/studies/{STUDY_UID}/series/{STUDY_UID}.1",
    }
    assert by_id[resource["endpoint"][0]["reference"]]["address"] == f"{WADO}/studies/{STUDY_UID}"


def test_the_same_revision_gives_the_same_resource() -> None:
    assert mapped(revision(1)) == mapped(revision(1))


def test_an_early_event_without_revision_change_set_and_attributes() -> None:
    data = revision(None)
    del data["revision"], data["changeSet"], data["study"]["attributes"], data["study"]["series"][0]["attributes"]
    resource = mapped(data)
    assert "extension" not in resource
    assert revision_of(resource) is None
    assert resource["subject"] == {"extension": [UNKNOWN], "type": "Patient"}
    assert resource["started"] == "2024-02-29"


def test_tags_as_numbers() -> None:
    data = revision(0, attributes=[{"group": 8, "element": 80, "vr": "SH", "value": "A1"}])
    assert mapped(data)["identifier"][1]["value"] == "A1"


def test_time_is_said_only_with_a_zone() -> None:
    assert mapped(revision())["started"] == "2024-02-29"
    assert mapped(revision(), Mapping(time_zone=ZoneInfo("Europe/Berlin")))["started"] == "2024-02-29T10:15:30+01:00"


def test_the_zone_of_the_images_wins_over_the_setting() -> None:
    attributes = [element("00080030", "TM", "1015"), element("00080201", "SH", "-0330")]
    resource = mapped(revision(0, attributes=attributes), Mapping(time_zone=ZoneInfo("Europe/Berlin")))
    assert resource["started"] == "2024-02-29T10:15:00-03:30"


def test_a_study_of_several_archives_and_modalities() -> None:
    data = revision(
        0,
        series(f"{STUDY_UID}.1", modality="CT"),
        series(f"{STUDY_UID}.2", modality="PT", endpoint=f"https://south/wado-rs/studies/{STUDY_UID}/series/1.2"),
        series(f"{STUDY_UID}.3", modality="CT"),
    )
    resource = mapped(data)
    assert [coding["code"] for coding in resource["modality"]] == ["CT", "PT"]
    assert len(resource["endpoint"]) == 2
    assert len(resource["contained"]) == 5
    assert resource["numberOfSeries"] == 3
    assert resource["numberOfInstances"] == 6


def test_addresses_are_moved_to_another_archive() -> None:
    data = revision(0, series(f"{STUDY_UID}.1"), series(f"{STUDY_UID}.2", endpoint=None))
    resource = mapped(data, Mapping(wado_base="https://viewer.example.org/studies/dicom-web/"))
    addresses = {item["address"] for item in resource["contained"]}
    base = f"https://viewer.example.org/studies/dicom-web/studies/{STUDY_UID}"
    assert addresses == {base, f"{base}/series/{STUDY_UID}.1", f"{base}/series/{STUDY_UID}.2"}


def test_a_series_without_address_has_no_endpoint() -> None:
    resource = mapped(revision(0, series(endpoint=None)))
    assert "contained" not in resource
    assert "endpoint" not in resource
    assert "endpoint" not in resource["series"][0]


def test_deleted_instances_and_series_are_absent() -> None:
    resource = mapped(revision(2, series(f"{STUDY_UID}.1", instances=1), series(f"{STUDY_UID}.2", instances=0)))
    assert [item["uid"] for item in resource["series"]] == [f"{STUDY_UID}.1"]
    assert (resource["numberOfSeries"], resource["numberOfInstances"]) == (1, 1)


def test_a_study_without_any_instance_is_cancelled() -> None:
    resource = mapped(revision(2, series(instances=0)))
    assert resource["status"] == "cancelled"
    assert (resource["numberOfSeries"], resource["numberOfInstances"]) == (0, 0)
    assert "series" not in resource
    assert "contained" not in resource


def test_what_the_images_do_not_say_is_said_to_be_unknown() -> None:
    broken = series(modality=None, number=-1)
    broken["instances"] = [{"sopInstanceUID": "1.2.3", "sopClassUID": None, "number": 2**31}]
    resource = mapped(revision(0, broken))
    assert resource["series"][0]["modality"] == {"extension": [UNKNOWN]}
    assert resource["series"][0]["instance"] == [{"uid": "1.2.3", "sopClass": {"extension": [UNKNOWN]}}]
    assert "number" not in resource["series"][0]
    assert "modality" not in resource


def test_the_study_knows_its_modalities_when_the_series_do_not() -> None:
    attributes = [{"group": "0008", "element": "0061", "vr": "CS", "value": "CT", "values": ["CT", "SR"]}]
    resource = mapped(revision(0, series(modality=None), attributes=attributes))
    assert [coding["code"] for coding in resource["modality"]] == ["CT", "SR"]


def test_series_start() -> None:
    step = [element("00400244", "DA", "20240301"), element("00400245", "TM", "0800")]
    assert mapped(revision(0, series(attributes=step)))["series"][0]["started"] == "2024-03-01"
    own = [element("00080021", "DA", "20240302"), *step]
    assert mapped(revision(0, series(attributes=own)))["series"][0]["started"] == "2024-03-02"


def test_identifier_systems_and_contained_patient() -> None:
    mapping = Mapping(patient_id_system="urn:oid:1.2", accession_number_system="urn:oid:1.3", contained_patient=True)
    resource = mapped(revision(), mapping)
    assert resource["identifier"][1]["system"] == "urn:oid:1.3"
    assert resource["subject"]["identifier"]["system"] == "urn:oid:1.2"
    assert resource["subject"]["reference"] == "#patient"
    assert resource["contained"][0] == {
        "resourceType": "Patient",
        "id": "patient",
        "identifier": [resource["subject"]["identifier"]],
        "name": [
            {
                "text": "Frau Eva Maria Müller",
                "family": "Müller",
                "given": ["Eva", "Maria"],
                "prefix": ["Frau"],
            }
        ],
        "gender": "female",
        "birthDate": "1971-02-03",
    }


def test_a_patient_of_whom_nothing_is_known_is_not_contained() -> None:
    resource = mapped(revision(0, attributes=[]), Mapping(contained_patient=True))
    assert resource["subject"] == {"extension": [UNKNOWN], "type": "Patient"}


def test_control_characters_and_padding_are_cleaned() -> None:
    attributes = [element("00081030", "LO", " Thorax\x00\x1b pa "), element("00080050", "SH", "  ")]
    resource = mapped(revision(0, attributes=attributes))
    assert resource["description"] == "Thorax   pa"
    assert len(resource["identifier"]) == 1


@pytest.mark.parametrize("level", ["study", "series", "instance"])
def test_a_broken_uid_is_refused(level: str) -> None:
    data = revision()
    if level == "study":
        data["study"]["studyInstanceUID"] = "1.2.x"
    elif level == "series":
        data["study"]["series"][0]["seriesInstanceUID"] = ""
    else:
        data["study"]["series"][0]["instances"][1]["sopInstanceUID"] = "1" * 65
    with pytest.raises(InvalidInput, match="UID"):
        imaging_study(StudyRevision.model_validate(data))


def test_five_thousand_instances() -> None:
    data = revision(0, *(series(f"{STUDY_UID}.{number}", instances=500) for number in range(10)))
    assert mapped(data)["numberOfInstances"] == 5000


_texts = st.none() | st.text(max_size=20)


@given(date=_texts, time=_texts, offset=_texts, name=_texts, patient_id=_texts, description=_texts, modality=_texts)
def test_any_text_gives_a_valid_resource(date, time, offset, name, patient_id, description, modality) -> None:  # type: ignore[no-untyped-def]
    attributes = [
        element("00080030", "TM", time),
        element("00080201", "SH", offset),
        element("00100010", "PN", name),
        element("00100020", "LO", patient_id),
        element("00081030", "LO", description),
    ]
    data = revision(0, series(modality=modality), studyDate=date, attributes=attributes)
    mapped(data, Mapping(contained_patient=True))


@given(uid=st.from_regex(r"[0-2](\.(0|[1-9][0-9]{0,10})){1,4}", fullmatch=True))
def test_any_uid_gives_a_valid_resource(uid: str) -> None:
    resource = mapped(revision(0, series(f"{uid}.1", study_uid=uid), study_uid=uid))
    assert resource["identifier"][0]["value"] == f"urn:oid:{uid}"

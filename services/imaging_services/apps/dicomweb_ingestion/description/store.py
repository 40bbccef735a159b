"""STOW-RS, and deletion."""

from imaging_services.apps.dicomweb_ingestion.description.model import PARTS_OF_DICOM, Operation
from imaging_services.domain.dicom.media_types import DICOM, DICOM_JSON, DICOM_XML, JSON, MULTIPART

_DOCUMENTS = (DICOM_JSON, DICOM_XML)
_FORMS = (
    PARTS_OF_DICOM,
    *(f'{MULTIPART}; type="{media_type}"' for media_type in (DICOM_JSON, DICOM_XML)),  # metadata, and bulk data
    DICOM,
    DICOM_JSON,
    JSON,
    DICOM_XML,
)
_SERIES = "/studies/{study}/series/{series}"


def _store(name: str, summary: str) -> Operation:
    return Operation(
        name,
        summary,
        "PS3.18 section 10.5",
        answers={200: _DOCUMENTS, 202: _DOCUMENTS, 409: _DOCUMENTS},
        refusals=(400, 406, 413, 415),
        request=_FORMS,
    )


def _delete(name: str, summary: str) -> Operation:
    return Operation(f"Delete{name}", summary, "common practice", answers={204: ()}, refusals=(400, 404))


OPERATIONS = {
    ("POST", "/studies"): _store("StoreInstances", "Store instances of any study"),
    ("POST", "/studies/{study}"): _store("StoreStudyInstances", "Store instances of one study, refuse others"),
    ("DELETE", "/studies/{study}"): _delete("Study", "Delete the instances of a study"),
    ("DELETE", _SERIES): _delete("Series", "Delete the instances of a series"),
    ("DELETE", _SERIES + "/instances/{instance}"): _delete("Instance", "Delete an instance"),
}

"""WADO-RS: instances, metadata, frames and bulk data."""

from imaging_services.apps.dicomweb_ingestion.description.model import (
    ACCEPT,
    DOCUMENTS,
    IF_NONE_MATCH,
    PARTS_OF_DICOM,
    PARTS_OF_OCTETS,
    RANGE,
    RETRIEVAL,
    VALIDATORS,
    Operation,
)
from imaging_services.domain.dicom.media_types import DICOM, MULTIPART, OCTET_STREAM

STUDY = "/studies/{study}"
SERIES = f"{STUDY}/series/{{series}}"
INSTANCE = f"{SERIES}/instances/{{instance}}"
LEVELS = {"Study": STUDY, "Series": SERIES, "Instance": INSTANCE}
_PIXELS = (PARTS_OF_OCTETS, f'{MULTIPART}; type="image/*"', OCTET_STREAM, "image/*", "video/*")


def _retrieve(level: str) -> Operation:
    alone = level == "Instance"
    types = (PARTS_OF_DICOM, DICOM) if alone else (PARTS_OF_DICOM,)
    return Operation(
        f"Retrieve{level}",
        f"Retrieve the {'instance' if alone else f'instances of one {level.lower()}'}",
        "PS3.18 section 10.4.1.1",
        answers={200: types, 206: (DICOM,) if alone else types, 304: ()},
        refusals=(*RETRIEVAL, 416) if alone else RETRIEVAL,
        parameters=(ACCEPT, IF_NONE_MATCH, RANGE) if alone else (ACCEPT, IF_NONE_MATCH),
        headers=VALIDATORS,
    )


def _metadata(level: str) -> Operation:
    return Operation(
        f"Retrieve{level}Metadata",
        f"Retrieve the metadata of {'the instance' if level == 'Instance' else f'one {level.lower()}'}",
        "PS3.18 section 10.4.1.1.2",
        answers={200: DOCUMENTS, 304: (), **({} if level == "Instance" else {206: DOCUMENTS})},
        refusals=RETRIEVAL,
        parameters=(ACCEPT, IF_NONE_MATCH),
        headers=VALIDATORS,
    )


OPERATIONS = {
    **{("GET", path): _retrieve(level) for level, path in LEVELS.items()},
    **{("GET", f"{path}/metadata"): _metadata(level) for level, path in LEVELS.items()},
    ("GET", f"{INSTANCE}/frames/{{frames}}"): Operation(
        "RetrieveFrames",
        "Retrieve frames, by their numbers from 1, separated by commas",
        "PS3.18 section 10.4.1.1.6",
        answers={200: _PIXELS, 304: ()},
        refusals=RETRIEVAL,
        parameters=(ACCEPT, IF_NONE_MATCH),
        headers=VALIDATORS,
    ),
    ("GET", f"{INSTANCE}/bulkdata/{{path}}"): Operation(
        "RetrieveBulkData",
        "Retrieve a value that metadata left out, by the tags and item numbers that lead to it",
        "PS3.18 section 10.4.1.1.5",
        answers={200: _PIXELS, 206: _PIXELS, 304: ()},
        refusals=(*RETRIEVAL, 416),
        parameters=(ACCEPT, IF_NONE_MATCH, RANGE),
        headers=VALIDATORS,
    ),
}

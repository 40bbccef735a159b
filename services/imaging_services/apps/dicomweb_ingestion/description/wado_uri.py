"""WADO-URI."""

from imaging_services.adapters.rendering.presentation import LARGEST_SIDE
from imaging_services.apps.dicomweb_ingestion.description.model import (
    ACCEPT,
    IF_NONE_MATCH,
    RETRIEVAL,
    UID,
    VALIDATORS,
    WHOLE,
    Operation,
    Parameter,
)
from imaging_services.domain.dicom.media_types import DICOM

_SIDE = {"type": "integer", "minimum": 1, "maximum": LARGEST_SIDE}
_NUMBER = {"type": "number"}

OPERATIONS = {
    ("GET", "/wado"): Operation(
        "RetrieveUri",
        "Retrieve one instance, as stored, in another transfer syntax, or rendered",
        "PS3.18 section 9",
        answers={
            200: (
                DICOM,
                "image/jpeg",
                "image/png",
                "image/gif",
                "text/html",
                "text/plain",
                "application/pdf",
                "video/*",
            ),
            304: (),
        },
        refusals=RETRIEVAL,
        parameters=(
            Parameter("requestType", "WADO", {"type": "string", "enum": ["WADO"]}, required=True),
            Parameter("studyUID", "Study Instance UID", UID, required=True),
            Parameter("seriesUID", "Series Instance UID", UID, required=True),
            Parameter("objectUID", "SOP Instance UID", UID, required=True),
            Parameter("contentType", "media types, the most wanted first, separated by commas"),
            Parameter("charset", "character set of text; only utf-8 is available"),
            Parameter("transferSyntax", "of application/dicom; without it as stored", UID),
            Parameter("frameNumber", "the frame, from 1", {**WHOLE, "minimum": 1}),
            Parameter("annotation", "patient, technique: burned into the image"),
            Parameter("rows", "largest height in pixels", _SIDE),
            Parameter("columns", "largest width in pixels", _SIDE),
            Parameter("region", "left,top,right,bottom, each from 0.0 to 1.0"),
            Parameter("windowCenter", "together with windowWidth", _NUMBER),
            Parameter("windowWidth", "1 or more", _NUMBER),
            Parameter("imageQuality", "of lossy compression", {"type": "integer", "minimum": 1, "maximum": 100}),
            Parameter("presentationSeriesUID", "Series Instance UID of the presentation state", UID),
            Parameter("presentationUID", "SOP Instance UID of a presentation state that is applied to the image", UID),
            Parameter("anonymize", "with application/dicom: de-identified", {"type": "string", "enum": ["yes"]}),
            ACCEPT,
            IF_NONE_MATCH,
        ),
        headers=VALIDATORS,
    ),
}

"""Header and frame streaming: docs/streaming.md."""

from imaging_services.apps.dicomweb_ingestion.description.model import (
    IF_NONE_MATCH,
    UID,
    VALIDATORS,
    WHOLE,
    Operation,
    Parameter,
)
from imaging_services.apps.dicomweb_ingestion.description.retrieve import STUDY
from imaging_services.domain.dicom.media_types import DICOM, MULTIPART

_PARTS_OF_XOP = f'{MULTIPART}; type="application/xop+xml"'
_SECTION = "ClearCanvas ImageServer, header and image streaming"
_TYPES = (
    DICOM,
    "application/clearcanvas",
    "application/clearcanvas-header",
    "application/pdf",
    "image/jpeg",
    "image/png",
)
_PARAMETERS = (
    Parameter("requestType", "WADO", {"type": "string", "enum": ["WADO"]}, required=True),
    Parameter("studyUID", "Study Instance UID", UID, required=True),
    Parameter("seriesUID", "Series Instance UID", UID, required=True),
    Parameter("objectUID", "SOP Instance UID", UID, required=True),
    Parameter("contentType", "the one media type wanted", {"type": "string", "enum": list(_TYPES)}),
    Parameter("frameNumber", "the frame, from 0", WHOLE),
    Parameter("stopTag", "where the header ends", {"type": "string", "pattern": "^[0-9A-Fa-f]{8}$"}),
)

OPERATIONS = {
    ("GET", f"{STUDY}/headers.xml.gz"): Operation(
        "RetrieveStudyHeaders",
        "Retrieve the headers of all instances of the study as one compressed XML document",
        _SECTION,
        answers={200: ("application/gzip",), 304: ()},
        refusals=(400, 404),
        parameters=(IF_NONE_MATCH,),
        headers=VALIDATORS,
    ),
    ("GET", "/wado/{partition}"): Operation(
        "StreamImage",
        "Retrieve a frame, a header or the whole of an instance of a partition; its name is the provider's",
        _SECTION,
        answers={200: _TYPES},
        refusals=(400, 501),
        parameters=_PARAMETERS,
    ),
    ("GET", "/HeaderStreaming/HeaderStreaming"): Operation(
        "DescribeHeaderStreaming", "The WSDL of header streaming", _SECTION, answers={200: ("text/xml",)}, refusals=()
    ),
    ("POST", "/HeaderStreaming/HeaderStreaming"): Operation(
        "GetStudyHeader",
        "SOAP 1.1: the headers of a study; a refusal is a fault with status 500",
        _SECTION,
        answers={200: ("text/xml", _PARTS_OF_XOP), 500: ("text/xml",)},
        refusals=(),
        parameters=(Parameter("SOAPAction", "the operation of the contract", place="header"),),
        request=("text/xml", _PARTS_OF_XOP),
    ),
}

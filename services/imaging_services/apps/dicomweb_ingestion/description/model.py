"""What can be said of one operation; the OpenAPI document, its page and the capabilities document are made from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from imaging_services.domain.dicom.media_types import DICOM, DICOM_JSON, DICOM_XML, JSON, MULTIPART, OCTET_STREAM

PROBLEM = "application/problem+json"
PARTS_OF_DICOM = f'{MULTIPART}; type="{DICOM}"'
PARTS_OF_XML = f'{MULTIPART}; type="{DICOM_XML}"'
PARTS_OF_OCTETS = f'{MULTIPART}; type="{OCTET_STREAM}"'
DOCUMENTS = (DICOM_JSON, JSON, PARTS_OF_XML)
VALIDATORS = ("ETag", "Last-Modified", "Cache-Control")

UID = {"type": "string", "pattern": r"^[0-9.]*[0-9][0-9.]*$", "minLength": 1, "maxLength": 64}
TEXT = {"type": "string"}
WHOLE = {"type": "integer", "minimum": 0, "maximum": 999_999_999}
FLAG = {"type": "string", "enum": ["true", "false"]}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query, or a header; ``schema`` is JSON Schema. ``repeats``: may be given more than once."""

    name: str
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: TEXT)
    place: Literal["query", "header"] = "query"
    required: bool = False
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one resource.

    ``name`` is the transaction's, ``section`` where the Standard has it. ``answers`` has the media types of each
    status of success; an empty tuple is an answer without a body. ``refusals`` are answered with problem documents.
    ``request`` has the media types of the request's body.
    """

    name: str
    summary: str
    section: str
    answers: Mapping[int, tuple[str, ...]]
    refusals: tuple[int, ...] = (400, 404, 406)
    parameters: tuple[Parameter, ...] = ()
    request: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()


ACCEPT = Parameter("accept", "media types instead of the Accept header (PS3.18 section 8.3.3.1)")
IF_NONE_MATCH = Parameter("If-None-Match", "ETags of what the client has; 304 when it is current", place="header")
RANGE = Parameter("Range", "one range of bytes, for an answer that is not multipart", place="header")

RETRIEVAL = (400, 404, 406, 410)
"""How a retrieval is refused."""
ALWAYS_POSSIBLE: Mapping[int, str] = {
    500: "an unforeseen error",
    502: "refused by a backend",
    503: "temporarily unavailable, or too many requests are under way; Retry-After says when to come back",
    504: "a backend did not answer in time",
}
STATUSES: Mapping[int, str] = {
    200: "success",
    202: "some instances are stored, others are not",
    204: "done; there is nothing to return",
    206: "the range of bytes, or of several instances those whose stored files are not missing",
    304: "the client's representation is current",
    400: "the request is wrong; the answer names what",
    404: "there is no such resource here",
    406: "none of the accepted media types is available; the answer says what is",
    409: "it contradicts what is recorded, or none of the instances could be stored",
    410: "recorded, but the stored file is missing",
    413: "the request is longer than allowed",
    415: "the body's media type is not taken",
    416: "the range lies outside",
    501: "not possible for this kind of instance",
    **ALWAYS_POSSIBLE,
}

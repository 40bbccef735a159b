"""The OpenAPI document (version 3.1) of what is served."""

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any
from zlib import crc32

from imaging_services.apps.dicomweb_ingestion.description.catalogue import Served
from imaging_services.apps.dicomweb_ingestion.description.model import (
    ALWAYS_POSSIBLE,
    PROBLEM,
    STATUSES,
    TEXT,
    UID,
    Operation,
    Parameter,
)
from imaging_services.domain.dicom.media_types import DICOM_JSON, JSON

MEDIA_TYPE = "application/vnd.oai.openapi+json"
OpenApi = dict[str, Any]

_PARAMETERS = "#/components/parameters/"
_TAG = "^[0-9A-F]{8}$"
_SCHEMAS: OpenApi = {
    "DataSet": {
        "type": "object",
        "description": "DICOM JSON model, PS3.18 annex F",
        "propertyNames": {"pattern": _TAG},
        "additionalProperties": {
            "type": "object",
            "properties": {
                "vr": {"type": "string", "pattern": "^[A-Z]{2}$"},
                "Value": {"type": "array", "minItems": 1},
                "BulkDataURI": TEXT,
                "InlineBinary": TEXT,
            },
            "required": ["vr"],
        },
    },
    "DataSets": {"type": "array", "items": {"$ref": "#/components/schemas/DataSet"}},
    "Problem": {
        "type": "object",
        "description": "problem document, RFC 9457",
        "properties": {
            "type": TEXT,
            "title": TEXT,
            "status": {"type": "integer"},
            "detail": TEXT,
            "correlation_id": TEXT,
        },
        "required": ["title", "status", "detail"],
    },
}
_PATH_PARAMETERS: Mapping[str, tuple[str, OpenApi]] = {
    "study": ("Study Instance UID", UID),
    "series": ("Series Instance UID", UID),
    "instance": ("SOP Instance UID", UID),
    "partition": ("name of the storage space", {"type": "string", "pattern": "^[A-Za-z0-9._-]+$"}),
    "frames": (
        "frame numbers, separated by commas",
        {"type": "string", "pattern": "^[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*$"},
    ),
    "path": (
        "tag, or tags and item numbers from 1 in turn, separated by slashes",
        {"type": "string", "pattern": "^[0-9A-Fa-f]{8}(/[1-9][0-9]*/[0-9A-Fa-f]{8})*$"},
    ),
}
_DESCRIPTION = (
    "Operations are those of DICOM PS3.18. Errors are problem documents (RFC 9457). JSON, XML and text are compressed "
    "with zstd or gzip for clients that accept it. Every answer has the request's correlation id in X-Correlation-Id."
)


def openapi_document(served: Iterable[Served]) -> OpenApi:
    """The document; paths begin with their prefixes."""
    paths: OpenApi = {}
    parameters: OpenApi = {}
    for one in served:
        if one.operation is not None:
            item = paths.setdefault(one.prefix + one.path, {"parameters": _path_parameters(one.path)})
            item[one.method.lower()] = _operation(one.operation, one.prefix, parameters)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "imaging-ingestion DICOMweb",
            "version": version("imaging-ingestion"),
            "description": _DESCRIPTION,
        },
        "paths": paths,
        "components": {"schemas": _SCHEMAS, "parameters": parameters},
    }


def _path_parameters(path: str) -> list[OpenApi]:
    found = [(name, *_PATH_PARAMETERS[name]) for name in re.findall(r"{(\w+)}", path)]
    return [
        {"name": name, "in": "path", "required": True, "description": description, "schema": schema}
        for name, description, schema in found
    ]


def _operation(operation: Operation, prefix: str, parameters: OpenApi) -> OpenApi:
    """The operation; its parameters are added to those that all share."""
    parameters.update({_key(parameter): _parameter(parameter) for parameter in operation.parameters})
    described: OpenApi = {
        "operationId": f"{operation.name}{prefix.replace('/', '-')}",
        "summary": operation.summary,
        "description": operation.section,
        "tags": [prefix or "/"],
        "parameters": [{"$ref": f"{_PARAMETERS}{_key(parameter)}"} for parameter in operation.parameters],
        "responses": _responses(operation),
    }
    if operation.request:
        body = {"type": "string", "contentMediaType": "application/octet-stream"}
        described["requestBody"] = {
            "required": True,
            "content": {media_type: {"schema": body} for media_type in operation.request},
        }
    return described


def _key(parameter: Parameter) -> str:
    """Equal parameters have equal keys; the number tells apart those that only share the name."""
    return f"{parameter.name}-{crc32(repr(parameter).encode()):08x}"


def _parameter(parameter: Parameter) -> OpenApi:
    schema = dict(parameter.schema)
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.description,
        "schema": {"type": "array", "items": schema} if parameter.repeats else schema,
        **({"style": "form", "explode": True} if parameter.repeats else {}),
    }


def _responses(operation: Operation) -> OpenApi:
    headers = {name: {"schema": TEXT} for name in ("X-Correlation-Id", *operation.headers)}
    responses: OpenApi = {}
    for status, media_types in operation.answers.items():
        responses[str(status)] = {"description": STATUSES[status], "headers": headers}
        if media_types:
            responses[str(status)]["content"] = {name: _payload(operation, name) for name in media_types}
    problem = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for status in (*operation.refusals, *ALWAYS_POSSIBLE):
        content = responses.setdefault(str(status), {"description": STATUSES[status]}).setdefault("content", {})
        content.update(problem)
    return responses


def _payload(operation: Operation, media_type: str) -> OpenApi:
    if media_type in (DICOM_JSON, JSON):
        name = "DataSet" if operation.request else "DataSets"
        return {"schema": {"$ref": f"#/components/schemas/{name}"}}
    return {}

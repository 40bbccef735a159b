"""Queries and their answers as JSON: what the query API of the event processor and its client say to each other."""

import json
from typing import TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from imaging_services.domain import errors
from imaging_services.domain.errors import BackendUnavailable, ImagingError, InvalidInput, answer_for
from imaging_services.domain.manifest.deletion import DeletedObject
from imaging_services.domain.manifest.query import DicomJson, InstanceLocation, Query, Scope

T = TypeVar("T")

QUERY = TypeAdapter(Query)
SCOPE = TypeAdapter(Scope)
RESULTS = TypeAdapter(list[DicomJson])
LOCATIONS = TypeAdapter(list[InstanceLocation])
COUNTS = TypeAdapter(dict[str, int])
DELETED_OBJECTS = TypeAdapter(list[DeletedObject])


LONGEST_LEASE_SECONDS = 86_400
MOST_OBJECTS = 1024


class WaitingObjects(BaseModel):
    """Body of ``POST /query/deleted-objects``: the provider's objects without an instance are wanted."""

    provider: str
    limit: int = Field(default=256, ge=1, le=MOST_OBJECTS)


class RemovedObjects(BaseModel):
    """Body of ``POST /query/deleted-objects/removed``: these are no longer in the storage space."""

    provider: str
    objects: list[DeletedObject] = Field(max_length=MOST_OBJECTS)


class Hold(BaseModel):
    """Body of ``PUT /query/associations/{id}``: with a study it holds that study back, without it renews."""

    lease_seconds: float = Field(
        gt=0, le=LONGEST_LEASE_SECONDS, description="time until the hold lapses unless renewed, seconds"
    )
    study_instance_uid: str | None = Field(default=None, description="the study that the association is sending")


HOLD = TypeAdapter(Hold)
WAITING_OBJECTS = TypeAdapter(WaitingObjects)
REMOVED_OBJECTS = TypeAdapter(RemovedObjects)


def read(adapter: TypeAdapter[T], body: bytes) -> T:
    """Decode a request. Raises ``InvalidInput`` that says what is wrong."""
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "body"
        raise InvalidInput(f"the request cannot be read: {place}: {first['msg']}") from None


def answer(adapter: TypeAdapter[T], body: bytes) -> T:
    """Decode an answer. Raises ``BackendUnavailable`` when it is none of ours."""
    try:
        return adapter.validate_json(body)
    except ValidationError:
        raise BackendUnavailable("the query API gave an answer that cannot be read") from None


def problem(error: ImagingError) -> tuple[int, bytes]:
    """HTTP status and JSON body that tell the client which error it was."""
    return answer_for(error).http, json.dumps({"error": type(error).__name__, "message": str(error)}).encode()


def error_of(status: int, body: bytes) -> ImagingError:
    """The error that an answer stands for; whatever the query API did not write itself is a failing backend."""
    try:
        told = json.loads(body)
        cls = getattr(errors, told["error"])
        message = str(told["message"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return BackendUnavailable(f"the query API answered {status}")
    if not (isinstance(cls, type) and issubclass(cls, ImagingError)):
        return BackendUnavailable(f"the query API answered {status}")
    return cls(message)

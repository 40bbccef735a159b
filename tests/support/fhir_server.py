"""A small real FHIR R4 server for ImagingStudy: search by identifier, conditional PUT, versions, If-Match.

It validates what it gets, as servers do: wrong media type 415, not a valid resource 422 with an OperationOutcome.
"""

import copy
import json
import threading
import uuid
from typing import Any

from fhir.resources.R4B.imagingstudy import ImagingStudy
from pydantic import ValidationError

from support.webhook import Receiver, Reply, Request

FHIR_JSON = {"Content-Type": "application/fhir+json"}
Resource = dict[str, Any]


def outcome(status: int, code: str, diagnostics: str, **reply: Any) -> Reply:
    """A failure with an OperationOutcome."""
    body = {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": code, "diagnostics": diagnostics}],
    }
    return Reply(status, json.dumps(body).encode(), FHIR_JSON, **reply)


class FhirServer(Receiver):
    """``studies`` maps ids to resources. ``fail_writes`` holds replies given to the next PUTs instead of writing.

    Switches: ``conditional_update`` (else such a PUT gets 405), ``searchable`` (else GET gets 403),
    ``authorization`` (else 401).
    """

    path = "/fhir/ImagingStudy"

    def __init__(
        self, *, conditional_update: bool = True, searchable: bool = True, authorization: str | None = None
    ) -> None:
        super().__init__()
        self.conditional_update = conditional_update
        self.searchable = searchable
        self.authorization = authorization
        self.studies: dict[str, Resource] = {}
        self.fail_writes: list[Reply] = []
        self._lock = threading.RLock()

    @property
    def writes(self) -> list[Request]:
        return [request for request in self.requests if request.method in ("PUT", "POST")]

    def only(self) -> Resource:
        """The one resource that must be there."""
        with self._lock:
            (resource,) = self.studies.values()
            return resource

    def change(self, resource_id: str, **members: Any) -> None:
        """Somebody else edits a resource: its version moves."""
        with self._lock:
            self._store(resource_id, self.studies[resource_id] | members)

    def answer(self, request: Request) -> Reply:
        if self.authorization is not None and request.headers.get("authorization") != self.authorization:
            return outcome(401, "login", "not logged in")
        resource_id = request.path.removeprefix(self.path).strip("/")
        if request.method == "GET":
            return self._read(resource_id, request)
        if self.fail_writes:
            return self.fail_writes.pop(0)
        return self._write(resource_id, request)

    def _read(self, resource_id: str, request: Request) -> Reply:
        if not self.searchable:
            return outcome(403, "forbidden", "no read")
        with self._lock:
            if resource_id:
                found = self.studies.get(resource_id)
                return self._resource(200, found) if found else outcome(404, "not-found", "no such resource")
            entries = [{"resource": resource} for resource in self._matching(request)]
        bundle = {"resourceType": "Bundle", "type": "searchset", "total": len(entries), "entry": entries}
        return Reply(200, json.dumps(bundle).encode(), FHIR_JSON)

    def _write(self, resource_id: str, request: Request) -> Reply:
        if not request.headers.get("content-type", "").startswith("application/fhir+json"):
            return outcome(415, "structure", "application/fhir+json is wanted")
        try:
            ImagingStudy.model_validate_json(request.body)
        except ValidationError as error:
            return outcome(422, "invalid", str(error))
        with self._lock:
            if resource_id:
                return self._update(resource_id, request)
            if not self.conditional_update:
                return outcome(405, "not-supported", "conditional update is not supported")
            matching = self._matching(request)
            if len(matching) > 1:
                return outcome(412, "multiple-matches", f"{len(matching)} resources match")
            return self._update(matching[0]["id"] if matching else "", request)

    def _update(self, resource_id: str, request: Request) -> Reply:
        body = request.json()
        known = self.studies.get(resource_id)
        if resource_id and body.get("id", resource_id) != resource_id:
            return outcome(400, "invalid", "the id differs from the address")
        wanted = request.headers.get("if-match")
        if wanted and (known is None or wanted != f'W/"{known["meta"]["versionId"]}"'):
            return outcome(412, "conflict", "If-Match does not match the current version")
        stored = self._store(resource_id or str(uuid.uuid4()), body)
        return self._resource(200 if known else 201, stored)

    def _store(self, resource_id: str, body: Resource) -> Resource:
        before = self.studies.get(resource_id)
        version = int(before["meta"]["versionId"]) + 1 if before else 1
        stored = copy.deepcopy(body) | {"id": resource_id, "meta": {"versionId": str(version)}}
        self.studies[resource_id] = stored
        return stored

    def _matching(self, request: Request) -> list[Resource]:
        (token,) = request.query["identifier"]
        system, _, value = token.partition("|")
        return [
            resource
            for resource in self.studies.values()
            if any(item.get("system") == system and item["value"] == value for item in resource["identifier"])
        ]

    def _resource(self, status: int, resource: Resource) -> Reply:
        headers = FHIR_JSON | {"ETag": f'W/"{resource["meta"]["versionId"]}"'}
        return Reply(status, json.dumps(resource).encode(), headers)

"""Writing a study revision to a FHIR server: one ImagingStudy a study, and never an older revision over a newer."""

import asyncio
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

import orjson
import structlog

from imaging_services.apps.study_binding.fhir_answers import failure, json_object
from imaging_services.apps.study_binding.fhir_values import Attributes, Json
from imaging_services.apps.study_binding.imaging_study import (
    STUDY_UID_SYSTEM,
    identifier_value,
    imaging_study,
    revision_of,
)
from imaging_services.apps.study_binding.mapping import Mapping
from imaging_services.apps.study_binding.people import identifying_values
from imaging_services.domain.dicom.uids import require_uid
from imaging_services.domain.errors import BackendUnavailable, ImagingError, Refused
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.events.payloads import StudyRevision
from imaging_services.domain.http import HttpClient

log = structlog.get_logger(__name__)

UpdateBy = Literal["identifier", "id"]
FHIR_JSON = "application/fhir+json"
_TRIES = 4
_PAUSE_SECONDS = 0.1
_VERSION_CONFLICT = frozenset({409, 412})
_GONE = frozenset({404, 410})
_ANY = frozenset(range(300, 600))  # judged here, since FHIR says more than the status


@dataclass(frozen=True, slots=True)
class Known:
    """What the server holds of a study. ``exists`` is None when it does not let itself be read."""

    exists: bool | None = None
    version: str | None = None
    revision: int | None = None


class FhirStudies:
    """The ``ImagingStudy`` collection of a FHIR R4 server; the client's base URL is the collection.

    By ``identifier`` (default) a study is written by conditional update on its Study Instance UID, by ``id`` as
    ``ImagingStudy/<Study Instance UID>``, for servers without conditional update. What the server holds is read first:
    a newer revision is left alone, and the write names the version it replaces (If-Match), so that of two writers one
    reads again. A server that can be written but not read gets the write without that.
    """

    def __init__(
        self,
        http: HttpClient,
        mapping: Mapping,
        update_by: UpdateBy = "identifier",
    ) -> None:
        self._http = http
        self._mapping = mapping
        self._update_by = update_by

    async def publish(self, event: CloudEvent, data: StudyRevision) -> None:
        """Bring the study's resource to this revision.

        Raises ``MissingIdentifier`` for a broken UID, ``Refused`` with the OperationOutcome's reason when the server
        will not have it, ``BackendUnavailable`` when it may have it later.
        """
        study_uid = require_uid("Study Instance UID", data.study.studyInstanceUID)
        resource = imaging_study(data, self._mapping)
        if self._update_by == "id":
            resource["id"] = study_uid
        secrets = identifying_values(Attributes(data.study.attributes))
        conflict: ImagingError | None = None
        for _ in range(_TRIES):
            known = await self._read(study_uid)
            if known.revision is not None and data.revision is not None and known.revision > data.revision:
                log.info("older revision left out", study=study_uid, revision=data.revision, newer=known.revision)
                return
            if known.exists is False and resource["status"] == "cancelled":
                log.info("study without instances is unknown there, nothing to cancel", study=study_uid)
                return
            conflict = await self._write(study_uid, resource, known, secrets)
            if conflict is None:
                return
            log.info("imaging study changed meanwhile", study=study_uid, error=str(conflict))
            await asyncio.sleep(_PAUSE_SECONDS)
        raise BackendUnavailable(f"{conflict}; {_TRIES} tries")

    async def _read(self, study_uid: str) -> Known:
        url = f"/{study_uid}" if self._update_by == "id" else f"{_of(study_uid)}&_elements=identifier,extension"
        response = await self._http.request("GET", url, headers={"accept": FHIR_JSON}, accept=_ANY)
        if response.status >= 500 and response.status != 501:
            raise failure(response.status, response.body, f"reading ImagingStudy {study_uid}")
        if response.status in _GONE and self._update_by == "id":
            return Known(exists=False)
        if response.status != 200:
            return Known()
        return _known(json_object(response.body), study_uid)

    async def _write(self, study_uid: str, resource: Json, known: Known, secrets: list[str]) -> ImagingError | None:
        """None when written, the server's complaint when somebody else was faster."""
        url = f"/{study_uid}" if self._update_by == "id" else _of(study_uid)
        headers = {"accept": FHIR_JSON, "content-type": FHIR_JSON, "prefer": "return=minimal"}
        if known.version:
            headers["if-match"] = f'W/"{known.version}"'
        response = await self._http.request("PUT", url, headers=headers, content=orjson.dumps(resource), accept=_ANY)
        if 200 <= response.status < 300:
            log.info("imaging study written", study=study_uid, status=response.status)
            return None
        error = failure(response.status, response.body, f"writing ImagingStudy {study_uid}", secrets)
        if response.status == 412 and not known.version:
            raise Refused(str(error))  # no version was named, so several resources match the identifier
        if response.status in _VERSION_CONFLICT:
            return error
        raise error


def _of(study_uid: str) -> str:
    return f"?identifier={quote(f'{STUDY_UID_SYSTEM}|{identifier_value(study_uid)}', safe=':')}"


def _known(document: Json, study_uid: str) -> Known:
    """Read from a resource, or from the Bundle of a search. Raises ``Refused`` when several resources match."""
    if document.get("resourceType") == "ImagingStudy":
        return _known_resource(document)
    if document.get("resourceType") != "Bundle":
        return Known()
    entries = [entry.get("resource") for entry in document.get("entry") or [] if isinstance(entry, dict)]
    matching = [entry for entry in entries if isinstance(entry, dict) and _is_of(entry, study_uid)]
    if len(matching) > 1:
        raise Refused(
            f"{len(matching)} ImagingStudy resources have the identifier of study {study_uid}: remove all but one"
        )
    return _known_resource(matching[0]) if matching else Known(exists=False)


def _is_of(resource: Json, study_uid: str) -> bool:
    identifiers = resource.get("identifier") or []
    values = [item.get("value") for item in identifiers if isinstance(item, dict)]
    return resource.get("resourceType") == "ImagingStudy" and identifier_value(study_uid) in values


def _known_resource(resource: Json) -> Known:
    meta = resource.get("meta")
    version = meta.get("versionId") if isinstance(meta, dict) else None
    return Known(exists=True, version=str(version) if version else None, revision=revision_of(resource))

"""The Store Instances Response of STOW-RS (PS3.18 section 10.5.3 and annex I)."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from imaging_services.apps.dicomweb_ingestion.stow_outcome import Outcome
from imaging_services.domain.dicom.media_types import DICOM_JSON, DICOM_XML
from imaging_services.domain.dicom.native_model import native_dicom_model
from imaging_services.domain.errors import answer_for, is_retryable
from imaging_services.domain.ingest.conformance import Finding
from imaging_services.domain.manifest.query import DicomJson

_REFERENCED_SOP_CLASS_UID = "00081150"
_REFERENCED_SOP_INSTANCE_UID = "00081155"
_RETRIEVE_URL = "00081190"
_FAILURE_REASON = "00081197"
_FAILED_SOP_SEQUENCE = "00081198"
_REFERENCED_SOP_SEQUENCE = "00081199"
_OTHER_FAILURES_SEQUENCE = "0008119A"
_WARNING_REASON = "00081196"
_FAILED_ATTRIBUTES_SEQUENCE = "00741048"
_SELECTOR_ATTRIBUTE = "00720026"
_ERROR_COMMENT = "00000902"
_COERCED, _DISCARDED, _DOES_NOT_MATCH_SOP_CLASS = 0xB000, 0xB006, 0xB007


def status_of(outcomes: Sequence[Outcome]) -> int:
    """200 when all are stored, 202 when some are, 409 when none is; a 5xx when none is and trying again may help."""
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if len(errors) < len(outcomes):
        return 202 if errors else 200
    if all(map(is_retryable, errors)):
        return max(answer_for(error).http for error in errors)
    return 409


def store_instances_response(outcomes: Iterable[Outcome], base: str) -> DicomJson:
    """The response module; ``base`` is what retrieve URLs begin with.

    A failure without SOP UIDs belongs into the Other Failures Sequence. It is listed in the Failed SOP Sequence too,
    since clients count failures there and know no other place.
    """
    outcomes = list(outcomes)
    stored = [outcome.ingested for outcome in outcomes if outcome.ingested is not None]
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    document: DicomJson = {}
    studies = {ingested.study_instance_uid for ingested in stored}
    if len(studies) == 1:
        document[_RETRIEVE_URL] = _value("UR", f"{base}/studies/{studies.pop()}")
    if failed:
        document[_FAILED_SOP_SEQUENCE] = _sequence(_failure(outcome) for outcome in failed)
    if stored:
        document[_REFERENCED_SOP_SEQUENCE] = _sequence(
            _reference(outcome, base) for outcome in outcomes if outcome.ingested
        )
    unidentified = [outcome for outcome in failed if not outcome.sop_instance_uid]
    if unidentified:
        document[_OTHER_FAILURES_SEQUENCE] = _sequence(_failure(outcome) for outcome in unidentified)
    return document


def encode(document: DicomJson, media_type: str) -> bytes:
    """The document as DICOM JSON, or as Native DICOM Model XML."""
    return native_dicom_model(document) if media_type == DICOM_XML else orjson.dumps(document)


MEDIA_TYPES = (DICOM_JSON, DICOM_XML)


def _reference(outcome: Outcome, base: str) -> dict[str, Any]:
    ingested = outcome.ingested
    assert ingested is not None  # only stored ones come here
    url = (
        f"{base}/studies/{ingested.study_instance_uid}/series/{ingested.series_instance_uid}"
        f"/instances/{ingested.sop_instance_uid}"
    )
    item = {
        _REFERENCED_SOP_CLASS_UID: _value("UI", ingested.sop_class_uid),
        _REFERENCED_SOP_INSTANCE_UID: _value("UI", ingested.sop_instance_uid),
        _RETRIEVE_URL: _value("UR", url),
    }
    warnings = [*outcome.discarded, *outcome.coerced, *outcome.findings]
    if warnings:
        reason = _DISCARDED if outcome.discarded else _COERCED if outcome.coerced else _DOES_NOT_MATCH_SOP_CLASS
        item[_WARNING_REASON] = _value("US", reason)
        item[_FAILED_ATTRIBUTES_SEQUENCE] = _sequence(map(_finding, warnings))
    return item


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        _ERROR_COMMENT: _value("LO", finding.comment),
        _SELECTOR_ATTRIBUTE: _value("AT", f"{finding.tag:08X}"),
    }


def _failure(outcome: Outcome) -> dict[str, Any]:
    assert outcome.error is not None  # only failures come here
    item = {}
    if outcome.sop_instance_uid:
        item[_REFERENCED_SOP_CLASS_UID] = _value("UI", outcome.sop_class_uid)
        item[_REFERENCED_SOP_INSTANCE_UID] = _value("UI", outcome.sop_instance_uid)
    item[_FAILURE_REASON] = _value("US", answer_for(outcome.error).stow)
    return item


def _value(vr: str, value: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": [value]}


def _sequence(items: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {"vr": "SQ", "Value": list(items)}

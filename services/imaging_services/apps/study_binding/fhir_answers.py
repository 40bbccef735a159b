"""What a FHIR server's answers mean: OperationOutcomes, and which failure may pass."""

from collections.abc import Iterable
from typing import Any

import orjson

from imaging_services.apps.study_binding.fhir_values import Json
from imaging_services.domain.errors import BackendUnavailable, ImagingError, OutOfResources, Refused

_MAY_PASS = frozenset({408, 409, 412, 423, 425, 429})
_NEVER_PASSES = frozenset({501, 505})
_LONGEST_REASON = 500
_SHORTEST_SECRET = 3


def failure(status: int, body: bytes, doing: str, secrets: Iterable[str] = ()) -> ImagingError:
    """The error for a status that is no success (RFC 9110 section 15); its sentence holds the server's reason.

    ``secrets`` are names and ids of the patient, which servers like to repeat and logs must not hold.
    """
    reason = without(secrets, outcome_text(body))
    sentence = f"{doing}: HTTP {status}{f', {reason}' if reason else ''}"
    if status == 507:
        return OutOfResources(sentence)
    if status in _MAY_PASS or (status >= 500 and status not in _NEVER_PASSES):
        return BackendUnavailable(sentence)
    return Refused(sentence)


def outcome_text(body: bytes) -> str:
    """The issues of an OperationOutcome as one text; empty when the body is none."""
    document = json_object(body)
    issues = document.get("issue") if document.get("resourceType") == "OperationOutcome" else None
    texts = [_issue(issue) for issue in issues if isinstance(issue, dict)] if isinstance(issues, list) else []
    return "; ".join(text for text in texts if text)[:_LONGEST_REASON]


def without(secrets: Iterable[str], text: str) -> str:
    """The text with every secret blotted out."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return text


def json_object(body: bytes) -> Json:
    """The body as a JSON object; empty when it is none."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _issue(issue: dict[str, Any]) -> str:
    details = issue.get("details")
    text = details.get("text") if isinstance(details, dict) else None
    where = issue.get("expression") or issue.get("location")
    parts = [issue.get("code"), text, issue.get("diagnostics"), ", ".join(map(str, where or []))]
    return " ".join(" ".join(str(part).split()) for part in parts if part)

"""Association requests and their outcome as messages between the two ends."""

import json
from collections.abc import Mapping
from typing import Any

from imaging_services.domain.dicom.dimse import AssociationRequest, Negotiated, ProposedContext, Rejection
from imaging_services.domain.errors import InvalidInput


def encode_request(request: AssociationRequest) -> bytes:
    """An association request as JSON."""
    return _dump(
        {
            "associationId": request.association_id,
            "callingAETitle": request.calling_ae_title,
            "calledAETitle": request.called_ae_title,
            "maxPduLength": request.max_pdu_length,
            "peer": request.peer,
            "contexts": [[c.context_id, c.abstract_syntax, list(c.transfer_syntaxes)] for c in request.contexts],
        }
    )


def decode_request(data: bytes) -> AssociationRequest:
    """The reverse. Raises ``InvalidInput`` when it is broken."""
    document = _load(data)
    try:
        return AssociationRequest(
            association_id=str(document["associationId"]),
            calling_ae_title=str(document["callingAETitle"]),
            called_ae_title=str(document["calledAETitle"]),
            max_pdu_length=int(document["maxPduLength"]),
            peer=str(document["peer"]),
            contexts=tuple(
                ProposedContext(int(context_id), str(abstract), tuple(map(str, transfer)))
                for context_id, abstract, transfer in document["contexts"]
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"relayed association request is broken: {error!r}") from error


def encode_outcome(outcome: Negotiated | Rejection) -> bytes:
    """What was accepted, or the rejection, as JSON."""
    if isinstance(outcome, Rejection):
        return _dump({"rejection": [outcome.result, outcome.source, outcome.reason, outcome.why]})
    accepted = {str(key): value for key, value in outcome.transfer_syntaxes.items()}
    return _dump({"accepted": accepted, "refused": {str(key): value for key, value in outcome.refusals.items()}})


def decode_outcome(data: bytes) -> Negotiated | Rejection:
    """The reverse. Raises ``InvalidInput`` when it is broken."""
    document = _load(data)
    try:
        if "rejection" in document:
            result, source, reason, why = document["rejection"]
            return Rejection(int(result), int(source), int(reason), str(why))
        accepted = {int(key): str(value) for key, value in document["accepted"].items()}
        return Negotiated(accepted, {int(key): int(value) for key, value in document["refused"].items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"relayed association outcome is broken: {error!r}") from error


def _dump(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _load(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError as error:
        raise InvalidInput(f"relayed association message is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidInput("relayed association message is no JSON object")
    return document

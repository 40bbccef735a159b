"""Association requests and their outcome as messages between the two ends."""

import json
from collections.abc import Mapping
from typing import Any

from imaging_services.domain.dicom.dimse import AssociationRequest, Negotiated, ProposedContext, Rejection, Role
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
            "contexts": [
                [c.context_id, c.abstract_syntax, list(c.transfer_syntaxes), list(c.related_general)]
                for c in request.contexts
            ],
            "roles": _roles_document(request.roles),
            "extended": {uid: value.hex() for uid, value in request.extended.items()},
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
                ProposedContext(int(context_id), str(abstract), tuple(map(str, transfer)), *_related(more))
                for context_id, abstract, transfer, *more in document["contexts"]
            ),
            roles=_roles(document),
            extended=_extended(document),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"relayed association request is broken: {error!r}") from error


def encode_outcome(outcome: Negotiated | Rejection) -> bytes:
    """What was accepted, or the rejection, as JSON."""
    if isinstance(outcome, Rejection):
        return _dump({"rejection": [outcome.result, outcome.source, outcome.reason, outcome.why]})
    accepted = {str(key): value for key, value in outcome.transfer_syntaxes.items()}
    return _dump(
        {
            "accepted": accepted,
            "refused": {str(key): value for key, value in outcome.refusals.items()},
            "roles": _roles_document(outcome.roles),
            "extended": {uid: value.hex() for uid, value in outcome.extended.items()},
        }
    )


def decode_outcome(data: bytes) -> Negotiated | Rejection:
    """The reverse. Raises ``InvalidInput`` when it is broken."""
    document = _load(data)
    try:
        if "rejection" in document:
            result, source, reason, why = document["rejection"]
            return Rejection(int(result), int(source), int(reason), str(why))
        accepted = {int(key): str(value) for key, value in document["accepted"].items()}
        refused = {int(key): int(value) for key, value in document["refused"].items()}
        return Negotiated(accepted, refused, _roles(document), _extended(document))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(f"relayed association outcome is broken: {error!r}") from error


def _roles_document(roles: Mapping[str, Role]) -> dict[str, list[bool]]:
    return {uid: [role.scu, role.scp] for uid, role in roles.items()}


# An end that is older leaves roles, extended negotiation and related SOP classes out.


def _roles(document: dict[str, Any]) -> dict[str, Role]:
    return {str(uid): Role(bool(scu), bool(scp)) for uid, (scu, scp) in document.get("roles", {}).items()}


def _extended(document: dict[str, Any]) -> dict[str, bytes]:
    return {str(uid): bytes.fromhex(value) for uid, value in document.get("extended", {}).items()}


def _related(more: list[Any]) -> tuple[tuple[str, ...], ...]:
    return (tuple(map(str, more[0])),) if more else ()


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

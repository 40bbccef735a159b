"""What an acceptor answers besides presentation contexts (PS3.7 annex D.3.3), and what a requestor makes of it."""

from collections.abc import Mapping

from imaging_services.adapters.dimse.associate import AssociateRequest
from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.adapters.dimse.user_information import ONE_AT_A_TIME, UserInformation, Window
from imaging_services.domain.dicom.dimse import AcceptedContext, AssociationRequest, Negotiated, Role

_OUR_OPERATIONS = 1  # sub-operations and event reports that an acceptor here has under way at a time


def requested(request: AssociateRequest, association_id: str, peer: str) -> AssociationRequest:
    """The request as services see it."""
    return AssociationRequest(
        association_id=association_id,
        calling_ae_title=request.calling_ae_title,
        called_ae_title=request.called_ae_title,
        contexts=request.contexts,
        max_pdu_length=request.user.max_pdu_length,
        peer=peer,
        roles=request.user.roles,
        extended=request.user.extended,
    )


def accepted_contexts(request: AssociateRequest, decision: Negotiated) -> dict[int, AcceptedContext]:
    """By presentation context id."""
    return {
        context.context_id: AcceptedContext(context.context_id, context.abstract_syntax, uid)
        for context in request.contexts
        if (uid := decision.transfer_syntaxes.get(context.context_id)) is not None
    }


def accepted_information(
    request: AssociateRequest, decision: Negotiated, limits: AssociationLimits, *, authenticated: bool
) -> UserInformation:
    """The user information of the answer: nothing in it that was not asked for. ``authenticated``: the user identity
    has been checked."""
    asked = request.user
    identity = asked.user_identity
    return UserInformation(
        max_pdu_length=limits.max_pdu_length,
        window=asked.window.within(limits.max_operations, _OUR_OPERATIONS) if asked.window else None,
        roles=both(asked.roles, decision.roles),
        extended={uid: value for uid, value in decision.extended.items() if uid in asked.extended},
        # of user names, the answer to a positive response requested is empty (PS3.7 section D.3.3.7.2)
        identity_response=b"" if authenticated and identity and identity.positive_response else None,
    )


def both(proposed: Mapping[str, Role], accepted: Mapping[str, Role]) -> dict[str, Role]:
    """Roles of the SOP classes on which both sides say something: those that both sides want (PS3.7 table D.3-9)."""
    return {
        uid: Role(role.scu and answer.scu, role.scp and answer.scp)
        for uid, role in proposed.items()
        if (answer := accepted.get(uid)) is not None
    }


def granted_operations(asked: UserInformation, answer: UserInformation) -> int:
    """How many operations we may have under way as the requestor: no more than we asked for."""
    if asked.window is None or answer.window is None:
        return 1
    return asked.window.within(answer.window.invoked or asked.window.invoked, 1).invoked


def operations_of_requestor(answer: UserInformation) -> int:
    """How many operations the requestor may have under way; what PS3.7 calls any number is none that is counted."""
    window: Window = answer.window or ONE_AT_A_TIME
    return window.invoked or 0xFFFF

"""Short operations on an association of their own: C-ECHO and C-FIND."""

import contextlib
from collections.abc import AsyncIterator, Mapping

from imaging_services.adapters.dimse.contexts import IMPLICIT_VR_LITTLE_ENDIAN, propose
from imaging_services.domain.dicom.command_set import CommandField, request
from imaging_services.domain.dicom.dimse import (
    VERIFICATION,
    DicomPeer,
    DimseResponse,
    ProposedContext,
    Requestor,
    Role,
)
from imaging_services.domain.errors import UnsupportedSopClass


@contextlib.asynccontextmanager
async def association(
    peer: DicomPeer,
    *,
    calling_ae_title: str,
    called_ae_title: str,
    contexts: tuple[ProposedContext, ...],
    roles: Mapping[str, Role] | None = None,
) -> AsyncIterator[Requestor]:
    """An association that is released at the end, or aborted on an exception; errors as of ``associate``."""
    requestor = await peer.associate(
        calling_ae_title=calling_ae_title, called_ae_title=called_ae_title, contexts=contexts, roles=roles
    )
    try:
        yield requestor
    except BaseException:
        await requestor.abort()
        raise
    await requestor.release()


async def echo(peer: DicomPeer, *, calling_ae_title: str, called_ae_title: str) -> int:
    """C-ECHO; returns the status. Raises ``UnsupportedSopClass`` when the peer refuses Verification."""
    contexts = propose([(VERIFICATION, (IMPLICIT_VR_LITTLE_ENDIAN,))])
    async with association(
        peer, calling_ae_title=calling_ae_title, called_ae_title=called_ae_title, contexts=contexts
    ) as requestor:
        context_id = _only_context(requestor, VERIFICATION)
        responses = [r async for r in requestor.request(context_id, request(CommandField.C_ECHO_RQ, VERIFICATION))]
        return responses[-1].command.status


async def find(
    peer: DicomPeer,
    *,
    calling_ae_title: str,
    called_ae_title: str,
    sop_class_uid: str,
    identifier: bytes,
    transfer_syntax: str = IMPLICIT_VR_LITTLE_ENDIAN,
) -> AsyncIterator[DimseResponse]:
    """C-FIND with an identifier encoded in ``transfer_syntax``; yields every response, the final one included, with
    data sets in the same syntax. Raises ``UnsupportedSopClass`` when the peer refuses the context."""
    contexts = propose([(sop_class_uid, (transfer_syntax,))])
    async with association(
        peer, calling_ae_title=calling_ae_title, called_ae_title=called_ae_title, contexts=contexts
    ) as requestor:
        command = request(CommandField.C_FIND_RQ, sop_class_uid, has_data_set=True)
        responses = requestor.request(_only_context(requestor, sop_class_uid), command, identifier)
        async for response in responses:
            yield response


def _only_context(requestor: Requestor, sop_class_uid: str) -> int:
    for context_id in requestor.contexts:
        return context_id
    raise UnsupportedSopClass(f"peer does not accept {sop_class_uid}")

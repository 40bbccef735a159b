"""Opening associations to a remote AE (PS3.8 section 9.2, requestor side)."""

import asyncio
import ssl
from collections.abc import Mapping

import structlog

from imaging_services.adapters.dimse.associate import AssociateAccept, encode_request
from imaging_services.adapters.dimse.requested import RequestedAssociation
from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.adapters.dimse.tls import TLS_END_SECONDS, TlsContext
from imaging_services.adapters.dimse.user_information import UserInformation, Window
from imaging_services.domain.dicom.dimse import (
    AcceptedContext,
    EventReportHandler,
    ProposedContext,
    Rejection,
    Role,
)
from imaging_services.domain.errors import AssociationRejected, BackendUnavailable, DeadlineExceeded, OutOfResources

log = structlog.get_logger(__name__)

_TRANSIENT = 2


class RemoteAE:
    """A remote AE at ``host:port``: implements ``DicomPeer``. It is asked for so many ``operations`` at a time."""

    def __init__(
        self,
        host: str,
        port: int,
        limits: AssociationLimits | None = None,
        *,
        tls: TlsContext | None = None,
        operations: int = 1,
    ) -> None:
        self.host = host
        self.port = port
        self._limits = limits or AssociationLimits()
        self._tls = tls
        self._operations = operations

    async def associate(
        self,
        *,
        calling_ae_title: str,
        called_ae_title: str,
        contexts: tuple[ProposedContext, ...],
        roles: Mapping[str, Role] | None = None,
        extended: Mapping[str, bytes] | None = None,
        events: EventReportHandler | None = None,
    ) -> RequestedAssociation:
        """Open an association; errors as of ``DicomPeer.associate``."""
        association = RequestedAssociation(self._limits, events)
        await self._connect(association)
        asked = UserInformation(
            max_pdu_length=self._limits.max_pdu_length,
            window=Window(self._operations, 1) if self._operations > 1 else None,
            roles=roles or {},
            extended=extended or {},
        )
        association.connection.write(encode_request(calling_ae_title, called_ae_title, contexts, asked))
        try:
            answer = await association.answer()
        except BaseException:
            try:
                await association.abort()
            except Exception:  # why there is no association, says the error that is raised
                log.exception("association could not be aborted", peer=association.connection.peer)
            raise
        if isinstance(answer, Rejection):
            raise _rejected(answer, called_ae_title, association.connection.peer)
        association.establish(_accepted(answer, contexts), asked, answer.user)
        return association

    async def _connect(self, association: RequestedAssociation) -> None:
        where = f"{self.host}:{self.port}"
        seconds = self._limits.connect_timeout_seconds
        tls = await self._tls.current() if self._tls is not None else None
        try:
            async with asyncio.timeout(seconds):
                await asyncio.get_running_loop().create_connection(
                    lambda: association.connection,
                    self.host,
                    self.port,
                    ssl=tls,
                    ssl_handshake_timeout=seconds if tls else None,
                    ssl_shutdown_timeout=TLS_END_SECONDS if tls else None,
                )
        except TimeoutError as error:
            raise DeadlineExceeded(f"no connection to {where} within {seconds:g} s") from error
        except (OSError, ssl.CertificateError) as error:
            raise BackendUnavailable(f"no connection to {where}: {error}") from error


def _accepted(answer: AssociateAccept, proposed: tuple[ProposedContext, ...]) -> dict[int, AcceptedContext]:
    by_id = {context.context_id: context for context in proposed}
    return {
        item.context_id: AcceptedContext(item.context_id, context.abstract_syntax, item.transfer_syntax)
        for item in answer.contexts
        if item.result == 0
        and (context := by_id.get(item.context_id)) is not None
        and item.transfer_syntax in context.transfer_syntaxes
    }


def _rejected(rejection: Rejection, called: str, peer: str) -> AssociationRejected | OutOfResources:
    sentence = f"{called} at {peer} rejected the association: {rejection.why}"
    return OutOfResources(sentence) if rejection.result == _TRANSIENT else AssociationRejected(sentence)

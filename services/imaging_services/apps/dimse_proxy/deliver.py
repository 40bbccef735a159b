"""What arrives over the relay goes to the target AE."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing
from typing import Protocol

import structlog

from imaging_services.domain.dicom.command_set import ERROR_COMMENT, CommandSet
from imaging_services.domain.dicom.dimse import (
    LOCAL_LIMIT_EXCEEDED,
    AssociationRequest,
    DicomPeer,
    DimseResponse,
    Negotiated,
    ProposedContext,
    Rejection,
    Requestor,
    StoreAnswer,
)
from imaging_services.domain.errors import OutOfResources, Refused, UnsupportedSopClass
from imaging_services.domain.relay.messages import AssociationNotice, Call, StoreMessage
from imaging_services.domain.relay.ports import DataSource

log = structlog.get_logger(__name__)

_NO_REASON_GIVEN = 1


class StorePool(Protocol):
    """Associations to the target that are kept open for C-STORE."""

    def store(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax: str,
        data: DataSource,
        *,
        command: CommandSet | None = None,
    ) -> Awaitable[CommandSet]:
        """The response's command set, whatever its status."""
        ...


class TargetHandler:
    """Serves a relay's own channel, see ``RelayHandler``: one target AE, called by ``calling``."""

    def __init__(self, peer: DicomPeer, pool: StorePool, *, calling: str, called: str) -> None:
        self._peer, self._pool = peer, pool
        self._calling, self._called = calling, called

    async def store(self, message: StoreMessage, data: DataSource) -> StoreAnswer:
        """C-STORE to the target; its status. Raises when it cannot be reached or accepts no such context."""
        call = message.call
        response = await self._pool.store(
            call.abstract_syntax,
            call.command.sop_instance_uid,
            call.transfer_syntax,
            data,
            command=call.command,
        )
        return StoreAnswer(response.status, response.text(ERROR_COMMENT))

    async def serve(self, call: Call, data: bytes | None) -> AsyncIterator[DimseResponse]:
        """Any other request, on an association of its own with the one context that it needs."""
        context = ProposedContext(1, call.abstract_syntax, (call.transfer_syntax,))
        requestor = await self._associate((context,))
        ended = False
        try:
            context_id = next(iter(requestor.contexts), None)
            if context_id is None:
                raise UnsupportedSopClass(f"{self._called} does not accept {call.abstract_syntax}")
            responses = requestor.request(context_id, call.command, data)
            async with aclosing(responses) as received:  # type: ignore[type-var]  # a generator behind its port
                async for response in received:
                    yield response
            ended = True
        finally:
            await self._leave(requestor, ended)

    async def negotiate(self, request: AssociationRequest) -> Negotiated | Rejection:
        """Ask the target itself, by an association with the same contexts."""
        try:
            requestor = await self._associate(request.contexts)
        except Refused as error:
            return Rejection(1, 1, _NO_REASON_GIVEN, str(error))
        except OutOfResources:
            return LOCAL_LIMIT_EXCEEDED
        accepted = {context_id: context.transfer_syntax for context_id, context in requestor.contexts.items()}
        await self._leave(requestor, ended=True)
        return Negotiated(accepted)

    async def noticed(self, notice: AssociationNotice) -> None:
        """A target AE is not told of associations at the other end."""

    async def _associate(self, contexts: tuple[ProposedContext, ...]) -> Requestor:
        return await self._peer.associate(
            calling_ae_title=self._calling, called_ae_title=self._called, contexts=contexts
        )

    async def _leave(self, requestor: Requestor, ended: bool) -> None:
        await (requestor.release() if ended else requestor.abort())

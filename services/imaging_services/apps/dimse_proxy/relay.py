"""Associations that peers open with the proxy: what they ask goes to the other end of the relay."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing

import structlog

from imaging_services.domain.dicom.dimse import (
    Association,
    AssociationRequest,
    DimseRequest,
    DimseResponse,
    Negotiated,
    ProposedContext,
    Rejection,
    StoreAnswer,
)
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.ingest.screening import screen
from imaging_services.domain.relay.admission import Admission
from imaging_services.domain.relay.identifier import read_identifier
from imaging_services.domain.relay.messages import AssociationNotice, AssociationState, Call, Origin
from imaging_services.domain.relay.ports import RelayLink

log = structlog.get_logger(__name__)

Choose = Callable[[Iterable[ProposedContext]], Negotiated]


class ProxyHandler:
    """Serves a listener, see ``AssociationHandler``.

    ``confirmed``: a C-STORE waits for the far side's status, and the far side's target decides on the contexts;
    otherwise it is safe once the relay keeps it, and the own lists decide.
    """

    def __init__(
        self, link: RelayLink, admission: Admission, choose: Choose, *, confirmed: bool, lease_seconds: float
    ) -> None:
        self._link, self._admission, self._choose = link, admission, choose
        self._confirmed, self._lease = confirmed, lease_seconds
        self._sending: dict[str, Origin] = {}

    async def negotiate(self, request: AssociationRequest) -> Negotiated | Rejection:
        """Admit the caller, then choose contexts."""
        refusal = self._admission.refusal(request)
        if refusal is not None:
            return refusal
        if self._confirmed:
            return await self._link.negotiate(request)
        return self._choose(request.contexts)

    async def store(self, association: Association, request: DimseRequest) -> StoreAnswer:
        """Hand a C-STORE to the relay; in durable mode success means that JetStream has it on disk."""
        if request.data is None:
            raise InvalidInput("C-STORE without a data set")
        call = _call(association, request)
        blocks = await screen(request.data, call.transfer_syntax, call.command)
        await self._open(call.origin)
        if self._confirmed:
            return await self._link.store_confirmed(call, blocks)
        await self._link.store_durably(call, blocks)
        return StoreAnswer(0x0000)

    async def serve(self, association: Association, request: DimseRequest) -> AsyncIterator[DimseResponse]:
        """Ask the far side; its responses as they come."""
        data = await read_identifier(request)
        responses = self._link.request(_call(association, request), data)
        async with aclosing(responses) as relayed:  # type: ignore[type-var]  # an async generator behind its port
            async for response in relayed:
                yield response

    async def closed(self, association: Association, clean: bool) -> None:
        """Tell the far side, so that it holds the study's revision no longer."""
        origin = self._sending.pop(association.association_id, None)
        if origin is not None:
            await self._link.announce(AssociationNotice(origin, AssociationState.CLOSED, self._lease))

    async def renew(self) -> None:
        """Say of every association that has sent instances that it is still open, until cancelled."""
        while True:
            await asyncio.sleep(self._lease / 3)
            for origin in list(self._sending.values()):
                await self._link.announce(AssociationNotice(origin, AssociationState.RENEWED, self._lease))

    async def _open(self, origin: Origin) -> None:
        if origin.association_id not in self._sending:
            self._sending[origin.association_id] = origin
            await self._link.announce(AssociationNotice(origin, AssociationState.OPEN, self._lease))


def _call(association: Association, request: DimseRequest) -> Call:
    opened = association.request
    origin = Origin(opened.association_id, opened.calling_ae_title, opened.called_ae_title)
    return Call(origin, request.context.abstract_syntax, request.context.transfer_syntax, request.command)

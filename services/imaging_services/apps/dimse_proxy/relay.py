"""Associations that peers open with the proxy: what they ask goes to the other end of the relay."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass

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
from imaging_services.domain.errors import InvalidInput, RetryableError
from imaging_services.domain.ingest.screening import screen
from imaging_services.domain.relay.admission import Admission
from imaging_services.domain.relay.identifier import read_identifier
from imaging_services.domain.relay.messages import AssociationNotice, AssociationState, Call, Origin
from imaging_services.domain.relay.ports import RelayLink

log = structlog.get_logger(__name__)

_END_SECONDS = 15 * 60.0  # how long the end of an association is tried to be told

Choose = Callable[[Iterable[ProposedContext]], Negotiated]


@dataclass(frozen=True, slots=True)
class _Ended:
    origin: Origin
    at: float


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
        self._ended: dict[str, _Ended] = {}

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
        """Tell the far side, so that it holds the study's revision no longer; behind the instances that are queued."""
        origin = self._sending.pop(association.association_id, None)
        if origin is None:
            return
        if self._confirmed:
            await self._link.announce(AssociationNotice(origin, AssociationState.CLOSED, self._lease))
            return
        self._ended[association.association_id] = _Ended(origin, time.monotonic())
        await self._finish(association.association_id)

    async def renew(self) -> None:
        """Say of every association that has sent instances that it is still open, until cancelled; and tell the ends
        that could not be told at once."""
        while True:
            await asyncio.sleep(self._lease / 3)
            for origin in [*self._sending.values(), *(one.origin for one in self._ended.values())]:
                await self._link.announce(AssociationNotice(origin, AssociationState.RENEWED, self._lease))
            for association_id in list(self._ended):
                if not await self._finish(association_id):
                    break

    async def _finish(self, association_id: str) -> bool:
        """Whether the end is told, or given up."""
        ended = self._ended[association_id]
        try:
            await self._link.finish(AssociationNotice(ended.origin, AssociationState.CLOSED, self._lease))
        except RetryableError as error:
            log.warning("end of association not told yet", association=association_id, error=str(error))
            if time.monotonic() < ended.at + _END_SECONDS:
                return False
            log.error("end of association not told, its lease ends it", association=association_id)
        self._ended.pop(association_id, None)
        return True

    async def _open(self, origin: Origin) -> None:
        if origin.association_id not in self._sending:
            self._sending[origin.association_id] = origin
            await self._link.announce(AssociationNotice(origin, AssociationState.OPEN, self._lease))


def _call(association: Association, request: DimseRequest) -> Call:
    opened = association.request
    origin = Origin(opened.association_id, opened.calling_ae_title, opened.called_ae_title)
    return Call(origin, request.context.abstract_syntax, request.context.transfer_syntax, request.command)

"""Associations that peers open with the proxy: what they ask goes to the other end of the relay."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace

import structlog

from imaging_services.apps.dimse_proxy.edge.spool import Spool
from imaging_services.apps.dimse_proxy.hearing import Hearing
from imaging_services.domain.dicom.command_set import CommandField
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
from imaging_services.domain.dicom.storage_scp import RequestorScp
from imaging_services.domain.errors import ImagingError, InvalidInput, RetryableError
from imaging_services.domain.ingest.screening import screen
from imaging_services.domain.ingest.urgency import NOTHING_URGENT, Urgency, UrgentAssociations
from imaging_services.domain.relay.admission import Admission
from imaging_services.domain.relay.identifier import LONGEST_IDENTIFIER, LONGEST_RELAYED, read_identifier
from imaging_services.domain.relay.messages import AssociationNotice, AssociationState, Call, Origin
from imaging_services.domain.relay.ports import RelayLink
from imaging_services.domain.relay.services import PRINT_MANAGEMENT, is_normalized

log = structlog.get_logger(__name__)

_END_SECONDS = 15 * 60.0  # how long the end of an association is tried to be told

_FILMS_AT_A_TIME = 4  # requests of print management, whose data sets may be large
_GETS_AT_A_TIME = 32  # each may hold 2 MiB of an instance that its requestor has not read
_EXTENDED_SECONDS = 5.0  # in which the far side says what it accepts of an extended negotiation

Choose = Callable[[Iterable[ProposedContext]], Negotiated]


@dataclass(frozen=True, slots=True)
class _Ended:
    origin: Origin
    at: float


class ProxyHandler:
    """Serves a listener, see ``AssociationHandler``.

    ``confirmed``: a C-STORE waits for the far side's status, and the far side's target decides on the contexts;
    otherwise it is safe once the relay keeps it, and the own lists decide. With a ``spool`` the proxy then answers
    C-ECHO itself: whoever asks whether it may send gets the answer, also while the far side is away.
    """

    def __init__(
        self,
        link: RelayLink,
        admission: Admission,
        choose: Choose,
        *,
        confirmed: bool,
        lease_seconds: float,
        spool: Spool | None = None,
        urgency: Urgency = NOTHING_URGENT,
    ) -> None:
        self._link, self._admission, self._choose = link, admission, choose
        self._spool = spool
        self._urgent = UrgentAssociations(urgency)
        self._echoes = spool is not None and not confirmed
        self._confirmed, self._lease = confirmed, lease_seconds
        self._sending: dict[str, Origin] = {}
        self._ended: dict[str, _Ended] = {}
        self._hearing: dict[str, Hearing] = {}
        self._films = asyncio.Semaphore(_FILMS_AT_A_TIME)
        self._gets = asyncio.Semaphore(_GETS_AT_A_TIME)

    async def negotiate(self, request: AssociationRequest) -> Negotiated | Rejection:
        """Admit the caller, then choose contexts."""
        refusal = self._admission.refusal(request)
        if refusal is not None:
            return refusal
        if self._confirmed:
            return await self._link.negotiate(request)
        extended = await self._accepted_extended(request) if request.extended else {}
        return replace(self._choose(request.contexts), roles=request.roles, extended=extended)

    async def store(self, association: Association, request: DimseRequest) -> StoreAnswer:
        """Hand a C-STORE to the relay; in durable mode success means that JetStream has it on disk."""
        if request.data is None:
            raise InvalidInput("C-STORE without a data set")
        call = _call(association, request)
        header, blocks = await screen(request.data, call.transfer_syntax, call.command)
        await self._open(call.origin)
        if self._confirmed:
            return await self._link.store_confirmed(call, blocks)
        keep = self._spool.store if self._spool else self._link.store_durably
        urgent = self._urgent.of(call.origin.association_id, call.origin.calling_ae_title)
        await keep(call, blocks, urgent=urgent.is_urgent(header, call.command))
        return StoreAnswer(0x0000)

    async def serve(self, association: Association, request: DimseRequest) -> AsyncIterator[DimseResponse]:
        """Ask the far side; its responses as they come, and after a C-CANCEL its final one. The instances of a C-GET go
        back over the association."""
        request.cancellation.handle()
        call, longest, requestor = _call(association, request), LONGEST_IDENTIFIER, None
        if self._echoes and call.command.command_field == CommandField.C_ECHO_RQ:
            yield DimseResponse(call.command.response(0x0000))
            return
        async with AsyncExitStack() as stack:
            if call.command.command_field == CommandField.C_GET_RQ:
                await stack.enter_async_context(self._gets)
                requestor = RequestorScp(association)
                call = replace(call, takes=tuple(requestor.contexts))
            if call.abstract_syntax in PRINT_MANAGEMENT:
                longest = LONGEST_RELAYED
                await stack.enter_async_context(self._films)
            if is_normalized(call.command):
                hearing = self._hearing.setdefault(association.association_id, Hearing(association))
                await stack.enter_async_context(hearing.asking(self._link))
                call = replace(call, hears=hearing.contexts)
            data = await read_identifier(request, longest)
            responses = self._link.request(call, data, request.cancellation, requestor)
            async with aclosing(responses) as relayed:  # type: ignore[type-var]  # a generator behind its port
                async for response in relayed:
                    yield response

    async def closed(self, association: Association, clean: bool) -> None:
        """Tell the far side, so that it holds the study's revision no longer, behind the instances that are queued; and
        keeps no association to its target for this one, at once."""
        hearing = self._hearing.pop(association.association_id, None)
        if hearing is not None:
            await hearing.close()
        self._urgent.forget(association.association_id)
        sent = self._sending.pop(association.association_id, None)
        if sent is not None and not self._confirmed:
            if hearing is not None:  # its end reaches one process of the far side, which may not be the one that asks
                await self._link.announce(AssociationNotice(sent, AssociationState.LEFT, self._lease))
            self._ended[association.association_id] = _Ended(sent, time.monotonic())
            await self._finish(association.association_id)
        elif sent is not None or hearing is not None:
            closed = AssociationNotice(_origin(association), AssociationState.CLOSED, self._lease)
            await self._link.announce(closed)

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

    async def _accepted_extended(self, request: AssociationRequest) -> Mapping[str, bytes]:
        """Only the far side knows. While it is away, nothing is accepted, and plain requests work all the same."""
        try:
            async with asyncio.timeout(_EXTENDED_SECONDS):
                outcome = await self._link.negotiate(request)
        except (ImagingError, TimeoutError) as error:
            log.info("extended negotiation not accepted", error=str(error))
            return {}
        return outcome.extended if isinstance(outcome, Negotiated) else {}

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


def _origin(association: Association) -> Origin:
    opened = association.request
    return Origin(opened.association_id, opened.calling_ae_title, opened.called_ae_title)


def _call(association: Association, request: DimseRequest) -> Call:
    extended = association.extended.get(request.context.abstract_syntax, b"")
    return Call(
        _origin(association),
        request.context.abstract_syntax,
        request.context.transfer_syntax,
        request.command,
        extended,
    )

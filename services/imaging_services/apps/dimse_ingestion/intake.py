"""What the ingestion does with a request, whether it came by an association or over the relay."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime
from functools import partial

import structlog

from imaging_services.apps.dimse_ingestion.asked import Asked
from imaging_services.apps.dimse_ingestion.commitment import Commitment
from imaging_services.apps.dimse_ingestion.find import FIND_CLASSES, Finder
from imaging_services.apps.dimse_ingestion.find import accept_extended as accept_for_find
from imaging_services.apps.dimse_ingestion.holds import AssociationHolds
from imaging_services.apps.dimse_ingestion.retrieve import Retriever
from imaging_services.apps.dimse_ingestion.selection import GET_CLASSES, MOVE_CLASSES
from imaging_services.apps.dimse_ingestion.selection import accept_extended as accept_for_retrieve
from imaging_services.apps.dimse_ingestion.transactions import STORAGE_COMMITMENT
from imaging_services.domain.dicom.command_set import CommandField, CommandSet
from imaging_services.domain.dicom.dimse import (
    Association,
    AssociationRequest,
    Cancellation,
    DimseRequest,
    DimseResponse,
    Negotiated,
    ProposedContext,
    Rejection,
    Status,
    StoreAnswer,
)
from imaging_services.domain.dicom.elements import Header
from imaging_services.domain.dicom.storage_scp import RequestorScp, StorageScp
from imaging_services.domain.errors import ImagingError, InvalidInput, answer_for
from imaging_services.domain.ingest.ingest import Expected, Ingest, Ingested, IsUrgent
from imaging_services.domain.ingest.urgency import NOTHING_URGENT, Urgency, UrgentAssociations
from imaging_services.domain.relay.admission import Admission
from imaging_services.domain.relay.identifier import read_identifier
from imaging_services.domain.relay.messages import AssociationNotice, AssociationState, Call, StoreMessage
from imaging_services.domain.relay.ports import DataSource

log = structlog.get_logger(__name__)

Choose = Callable[[Iterable[ProposedContext]], Negotiated]


class Intake:
    """Stores instances and commits itself to them, answers queries and sends what is asked for."""

    def __init__(
        self, ingest: Ingest, finder: Finder, retriever: Retriever, commitment: Commitment, holds: AssociationHolds
    ) -> None:
        self._ingest, self._finder, self._holds = ingest, finder, holds
        self._retriever, self._commitment = retriever, commitment

    async def store(
        self,
        association_id: str,
        command: CommandSet,
        transfer_syntax: str,
        data: AsyncIterable[bytes],
        *,
        direct: bool,
        accepted_at: datetime | None = None,
        is_urgent: IsUrgent | None = None,
    ) -> StoreAnswer:
        """C-STORE; success means stored and recorded. ``accepted_at`` is when a relay took the instance over from its
        sender, ``is_urgent`` as in ``Ingest.receive``, which raises what this raises."""

        async def hold(ingested: Ingested) -> None:
            # Before the event: recording it starts the study's quiet time.
            await self._holds.hold(association_id, ingested.study_instance_uid, direct=direct)

        expected = Expected(command.sop_class_uid or None, command.sop_instance_uid or None)
        await self._ingest.receive(
            data,
            transfer_syntax=transfer_syntax,
            expected=expected,
            before_announce=hold,
            accepted_at=accepted_at,
            is_urgent=is_urgent,
        )
        return StoreAnswer(Status.SUCCESS)

    async def serve(self, asked: Asked) -> AsyncIterator[DimseResponse]:
        """Any other request; one that its SOP class does not have is answered 0211H (PS3.7 annex C.5.5)."""
        try:
            responses = self._operation(asked)
            async with aclosing(responses) as answers:  # type: ignore[type-var]  # generators behind their interface
                async for response in answers:
                    yield response
        except ImagingError as error:
            log.warning("request failed", sop_class=asked.abstract_syntax, error=f"{type(error).__name__}: {error}")
            yield DimseResponse(asked.command.response(answer_for(error).dimse, error_comment=str(error)))

    def closed(self, association_id: str) -> None:
        """An association of this process has ended."""
        self._commitment.closed(association_id)

    def _operation(self, asked: Asked) -> AsyncIterator[DimseResponse]:
        field, sop_class = asked.command.command_field, asked.abstract_syntax
        if field == CommandField.C_ECHO_RQ:
            return _echo(asked)
        if field == CommandField.C_FIND_RQ and sop_class in FIND_CLASSES:
            return self._find(asked)
        if field == CommandField.C_MOVE_RQ and sop_class in MOVE_CLASSES:
            return self._retriever.move(asked)
        if field == CommandField.C_GET_RQ and sop_class in GET_CLASSES:
            return self._retriever.get(asked)
        if field == CommandField.N_ACTION_RQ and sop_class == STORAGE_COMMITMENT:
            return self._commitment.action(asked)
        return _unrecognized(asked)

    def _find(self, asked: Asked) -> AsyncIterator[DimseResponse]:
        if asked.data is None:
            raise InvalidInput("C-FIND without an identifier")
        return self._finder.find(
            asked.abstract_syntax, asked.transfer_syntax, asked.command, asked.data, extended=asked.extended
        )


async def _echo(asked: Asked) -> AsyncIterator[DimseResponse]:
    yield DimseResponse(asked.command.response(Status.SUCCESS))


async def _unrecognized(asked: Asked) -> AsyncIterator[DimseResponse]:
    comment = f"no operation {asked.command.command_field:04X}H on this SOP class"
    yield DimseResponse(asked.command.response(Status.UNRECOGNIZED_OPERATION, error_comment=comment))


def _accept_extended(request: AssociationRequest) -> dict[str, bytes]:
    """What is accepted of the SOP class extended negotiation (PS3.7 annex D.3.3.5)."""
    return accept_for_find(request.extended) | accept_for_retrieve(request.extended)


class DirectHandler:
    """Serves the own listener, see ``AssociationHandler``."""

    def __init__(
        self,
        intake: Intake,
        holds: AssociationHolds,
        admission: Admission,
        choose: Choose,
        urgency: Urgency = NOTHING_URGENT,
    ) -> None:
        self._intake, self._holds, self._admission, self._choose = intake, holds, admission, choose
        self._urgent = UrgentAssociations(urgency)

    async def negotiate(self, request: AssociationRequest) -> Negotiated | Rejection:
        """Admit the caller, then choose contexts from the own lists; whoever wants to be an SCP may (C-GET)."""
        extended = _accept_extended(request)
        chosen = replace(self._choose(request.contexts), roles=request.roles, extended=extended)
        return self._admission.refusal(request) or chosen

    async def store(self, association: Association, request: DimseRequest) -> StoreAnswer:
        """C-STORE."""
        if request.data is None:
            raise InvalidInput("C-STORE without a data set")
        urgent = self._urgent.of(association.association_id, association.request.calling_ae_title)
        return await self._intake.store(
            association.association_id,
            request.command,
            request.context.transfer_syntax,
            request.data,
            direct=True,
            is_urgent=partial(urgent.is_urgent, command=request.command),
        )

    async def serve(self, association: Association, request: DimseRequest) -> AsyncIterator[DimseResponse]:
        """Every other request."""
        asked = Asked(
            association.request.calling_ae_title,
            request.context.abstract_syntax,
            request.context.transfer_syntax,
            request.command,
            await read_identifier(request),
            request.cancellation,
            association,
            association.extended.get(request.context.abstract_syntax, b""),
            RequestorScp(association),
        )
        async with aclosing(self._intake.serve(asked)) as responses:  # type: ignore[type-var]  # a generator
            async for response in responses:
                yield response

    async def closed(self, association: Association, clean: bool) -> None:
        """The association holds no study back any longer, and no report goes over it."""
        self._urgent.forget(association.association_id)
        self._intake.closed(association.association_id)
        await self._holds.ended(association.association_id)


class RelayedHandler:
    """Serves the relay's channel, see ``RelayHandler``. The proxy has admitted the callers. What it sent as urgent
    stays so; of the rest the own settings decide, and in ``confirmed`` mode of all."""

    def __init__(
        self, intake: Intake, holds: AssociationHolds, choose: Choose, urgency: Urgency = NOTHING_URGENT
    ) -> None:
        self._intake, self._holds, self._choose = intake, holds, choose
        self._urgent = UrgentAssociations(urgency)

    async def store(self, message: StoreMessage, data: DataSource) -> StoreAnswer:
        """C-STORE."""
        call = message.call
        urgent = self._urgent.of(call.origin.association_id, call.origin.calling_ae_title)
        return await self._intake.store(
            call.origin.association_id,
            call.command,
            call.transfer_syntax,
            data(),
            direct=False,
            accepted_at=message.accepted_at,
            is_urgent=_always if message.urgent else partial(urgent.is_urgent, command=call.command),
        )

    async def serve(
        self,
        call: Call,
        data: bytes | None,
        cancellation: Cancellation | None = None,
        requestor: StorageScp | None = None,
    ) -> AsyncIterator[DimseResponse]:
        """Every other request."""
        asked = Asked(
            call.origin.calling_ae_title,
            call.abstract_syntax,
            call.transfer_syntax,
            call.command,
            data,
            cancellation or Cancellation(),
            extended=call.extended,
            requestor=requestor,
            association_id=call.origin.association_id,
        )
        async with aclosing(self._intake.serve(asked)) as responses:  # type: ignore[type-var]  # a generator
            async for response in responses:
                yield response

    async def negotiate(self, request: AssociationRequest) -> Negotiated | Rejection:
        """There is no target to ask: the own lists decide."""
        return replace(self._choose(request.contexts), roles=request.roles, extended=_accept_extended(request))

    async def noticed(self, notice: AssociationNotice) -> None:
        """Renew or release what an association at the other end holds."""
        if notice.state is AssociationState.CLOSED:
            self._urgent.forget(notice.origin.association_id)
        await self._holds.noticed(notice)


def _always(header: Header) -> bool:
    return True

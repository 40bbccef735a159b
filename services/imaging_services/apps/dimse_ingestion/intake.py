"""What the ingestion does with a request, whether it came by an association or over the relay."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from datetime import datetime

import structlog

from imaging_services.apps.dimse_ingestion.find import FIND_CLASSES, Finder
from imaging_services.apps.dimse_ingestion.holds import AssociationHolds
from imaging_services.domain.dicom.command_set import CommandField, CommandSet
from imaging_services.domain.dicom.dimse import (
    Association,
    AssociationRequest,
    DimseRequest,
    DimseResponse,
    Negotiated,
    ProposedContext,
    Rejection,
    Status,
    StoreAnswer,
)
from imaging_services.domain.errors import ImagingError, InvalidInput, answer_for
from imaging_services.domain.ingest.ingest import Expected, Ingest, Ingested
from imaging_services.domain.relay.admission import Admission
from imaging_services.domain.relay.identifier import read_identifier
from imaging_services.domain.relay.messages import AssociationNotice, Call, StoreMessage
from imaging_services.domain.relay.ports import DataSource

log = structlog.get_logger(__name__)

Choose = Callable[[Iterable[ProposedContext]], Negotiated]


class Intake:
    """Stores instances and answers queries."""

    def __init__(self, ingest: Ingest, finder: Finder, holds: AssociationHolds) -> None:
        self._ingest, self._finder, self._holds = ingest, finder, holds

    async def store(
        self,
        association_id: str,
        command: CommandSet,
        transfer_syntax: str,
        data: AsyncIterable[bytes],
        *,
        direct: bool,
        accepted_at: datetime | None = None,
    ) -> StoreAnswer:
        """C-STORE; success means stored and recorded. ``accepted_at`` is when a relay took the instance over from its
        sender. Raises what ``Ingest.receive`` raises."""

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
        )
        return StoreAnswer(Status.SUCCESS)

    async def serve(
        self, abstract_syntax: str, transfer_syntax: str, command: CommandSet, data: bytes | None
    ) -> AsyncIterator[DimseResponse]:
        """C-ECHO and C-FIND; anything else is answered 0211H (PS3.7 annex C.5.5)."""
        field = command.command_field
        if field == CommandField.C_ECHO_RQ:
            yield DimseResponse(command.response(Status.SUCCESS))
        elif field == CommandField.C_FIND_RQ and abstract_syntax in FIND_CLASSES:
            try:
                if data is None:
                    raise InvalidInput("C-FIND without an identifier")
                async for response in self._finder.find(abstract_syntax, transfer_syntax, command, data):
                    yield response
            except ImagingError as error:
                log.warning("query failed", sop_class=abstract_syntax, error=f"{type(error).__name__}: {error}")
                status = answer_for(error).dimse
                yield DimseResponse(command.response(status, error_comment=str(error)))
        else:
            comment = f"no operation {field:04X}H on this SOP class"
            yield DimseResponse(command.response(Status.UNRECOGNIZED_OPERATION, error_comment=comment))


class DirectHandler:
    """Serves the own listener, see ``AssociationHandler``."""

    def __init__(self, intake: Intake, holds: AssociationHolds, admission: Admission, choose: Choose) -> None:
        self._intake, self._holds, self._admission, self._choose = intake, holds, admission, choose

    async def negotiate(self, request: AssociationRequest) -> Negotiated | Rejection:
        """Admit the caller, then choose contexts from the own lists."""
        return self._admission.refusal(request) or self._choose(request.contexts)

    async def store(self, association: Association, request: DimseRequest) -> StoreAnswer:
        """C-STORE."""
        if request.data is None:
            raise InvalidInput("C-STORE without a data set")
        return await self._intake.store(
            association.association_id, request.command, request.context.transfer_syntax, request.data, direct=True
        )

    async def serve(self, association: Association, request: DimseRequest) -> AsyncIterator[DimseResponse]:
        """Every other request."""
        data = await read_identifier(request)
        context = request.context
        async for response in self._intake.serve(
            context.abstract_syntax, context.transfer_syntax, request.command, data
        ):
            yield response

    async def closed(self, association: Association, clean: bool) -> None:
        """The association holds no study back any longer."""
        await self._holds.ended(association.association_id)


class RelayedHandler:
    """Serves the relay's channel, see ``RelayHandler``. The proxy has admitted the callers."""

    def __init__(self, intake: Intake, holds: AssociationHolds, choose: Choose) -> None:
        self._intake, self._holds, self._choose = intake, holds, choose

    async def store(self, message: StoreMessage, data: DataSource) -> StoreAnswer:
        """C-STORE."""
        call = message.call
        return await self._intake.store(
            call.origin.association_id,
            call.command,
            call.transfer_syntax,
            data(),
            direct=False,
            accepted_at=message.accepted_at,
        )

    async def serve(self, call: Call, data: bytes | None) -> AsyncIterator[DimseResponse]:
        """Every other request."""
        async for response in self._intake.serve(call.abstract_syntax, call.transfer_syntax, call.command, data):
            yield response

    async def negotiate(self, request: AssociationRequest) -> Negotiated | Rejection:
        """There is no target to ask: the own lists decide."""
        return self._choose(request.contexts)

    async def noticed(self, notice: AssociationNotice) -> None:
        """Renew or release what an association at the other end holds."""
        await self._holds.noticed(notice)

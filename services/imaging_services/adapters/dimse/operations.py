"""Requests of a peer: the handler's answer, or its error, as response messages (PS3.7)."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import structlog

from imaging_services.adapters.dimse.connection import Connection
from imaging_services.adapters.dimse.messages import IncomingMessage, encode_message
from imaging_services.adapters.dimse.messages import error_comment as comment
from imaging_services.adapters.dimse.sub_operations import BackwardRequests
from imaging_services.domain.dicom.command_set import CommandField, CommandSet
from imaging_services.domain.dicom.dimse import (
    PENDING,
    Association,
    AssociationHandler,
    Cancellation,
    DimseRequest,
    DimseResponse,
    Status,
    StoreAnswer,
)
from imaging_services.domain.errors import ImagingError, InvalidInput, answer_for

log = structlog.get_logger(__name__)

# PS3.7 table E.1-1: requests that exist; anything else is answered 0211H without asking the handler
_KNOWN_REQUESTS = frozenset(
    {
        CommandField.C_GET_RQ,
        CommandField.C_FIND_RQ,
        CommandField.C_MOVE_RQ,
        CommandField.C_ECHO_RQ,
        0x0100,  # N-EVENT-REPORT-RQ
        0x0110,  # N-GET-RQ
        0x0120,  # N-SET-RQ
        0x0130,  # N-ACTION-RQ
        0x0140,  # N-CREATE-RQ
        0x0150,  # N-DELETE-RQ
    }
)


@dataclass(slots=True)
class _Running:
    task: asyncio.Task[None]
    cancellation: Cancellation


class Operations:
    """Performs the requests of one association with its handler; ``perform`` may be called again before it returns.
    ``backward`` are the requests that go the other way."""

    def __init__(
        self,
        handler: AssociationHandler,
        association: Association,
        connection: Connection,
        max_pdu_length: int,
        backward: BackwardRequests,
    ) -> None:
        self._handler = handler
        self._association = association
        self._connection = connection
        self._max_pdu_length = max_pdu_length
        self._backward = backward
        self._running: dict[int, _Running] = {}

    async def perform(self, message: IncomingMessage, cancellation: Cancellation) -> None:
        """Perform and answer; the ``cancellation`` may have come already. Raises ``BackendUnavailable`` or
        ``DeadlineExceeded`` when the association is lost."""
        request = DimseRequest(message.context, message.command, message.data, cancellation)
        field = message.command.command_field
        if field == CommandField.C_STORE_RQ:
            answer = await self._store(request)
            await self._drain(message)
            answer = replace(answer, error_comment=comment(answer.error_comment))
            await self._send(request, answer.to(request.command))
        elif message.command.message_id in self._running:
            await self._drain(message)
            await self._respond(request, Status.DUPLICATE_INVOCATION, "an operation of this message id is under way")
        elif field in _KNOWN_REQUESTS:
            await self._perform_with_responses(request)
            await self._drain(message)
        else:
            await self._drain(message)
            await self._respond(request, Status.UNRECOGNIZED_OPERATION, f"command field {field:04X}H is unknown")

    def cancel(self, message_id: int) -> bool:
        """C-CANCEL-RQ: end the operation with FE00H; False when it does not run."""
        running = self._running.get(message_id)
        if running is None:
            return False
        running.cancellation.request()
        if not running.cancellation.handled:
            running.task.cancel()
        return True

    def lost(self) -> None:
        """The association is over: nobody waits for more responses. A C-STORE under way may finish."""
        self._backward.lost()
        for running in self._running.values():
            running.task.cancel()

    async def _store(self, request: DimseRequest) -> StoreAnswer:
        if request.data is None:
            return StoreAnswer(*self._explain(request, InvalidInput("C-STORE without a data set")))
        try:
            return await self._handler.store(self._association, request)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, the peer gets an answer
            return StoreAnswer(*self._explain(request, error))

    async def _perform_with_responses(self, request: DimseRequest) -> None:
        message_id, cancellation = request.command.message_id, request.cancellation
        task = asyncio.get_running_loop().create_task(self._responses(request))
        self._running[message_id] = _Running(task, cancellation)
        try:
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()
        finally:
            self._forget(request)
            if not task.done():  # shutdown
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if cancellation.requested and task.cancelled():
            log.info("operation cancelled by peer", association=self._association.association_id)
            await self._respond(request, Status.CANCEL)

    async def _responses(self, request: DimseRequest) -> None:
        try:
            await self._send_all(request, self._handler.serve(self._association, request))
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, the peer gets an answer
            answer = self._explain(request, error)
            if self._connection.is_open:
                await self._respond(request, *answer)

    async def _send_all(self, request: DimseRequest, responses: AsyncIterator[DimseResponse]) -> None:
        """Send up to and including the final response."""
        try:
            async for response in responses:
                if request.cancellation.requested and not request.cancellation.handled:  # before the handler began
                    await self._respond(request, Status.CANCEL)
                    return
                await self._send(request, response.command, response.data)
                if response.command.status not in PENDING:
                    return
        finally:
            close = getattr(responses, "aclose", None)
            if close is not None:
                await close()
        log.error("operation without a final response", command=f"{request.command.command_field:04X}H")
        await self._respond(request, Status.PROCESSING_FAILURE, "no final response")

    def _explain(self, request: DimseRequest, error: Exception) -> tuple[int, str]:
        command = request.command
        where = {
            "association": self._association.association_id,
            "command": f"{command.command_field:04X}H",
            "sop_class": command.sop_class_uid,
            "sop_instance": command.sop_instance_uid,
        }
        if isinstance(error, ImagingError):
            log.warning("request failed", why=str(error), error=type(error).__name__, **where)
            return answer_for(error).dimse, str(error)
        log.error("request failed unforeseen", exc_info=error, **where)
        return Status.PROCESSING_FAILURE, ""

    async def _drain(self, message: IncomingMessage) -> None:
        # Also when the rest has arrived: what nobody reads would count against the flow control for good.
        if message.data is not None:
            await message.data.drain()

    async def _respond(self, request: DimseRequest, status: int, error_comment: str = "") -> None:
        response = request.command.response(status, error_comment=comment(error_comment))
        await self._send(request, response)

    async def _send(self, request: DimseRequest, command: CommandSet, data: bytes | None = None) -> None:
        if command.status not in PENDING:
            self._forget(request)  # a C-CANCEL that comes from now on is too late
        async with self._backward.sending:
            self._connection.write(encode_message(request.context.context_id, command, data, self._max_pdu_length))
            await self._connection.drain()

    def _forget(self, request: DimseRequest) -> None:
        """After its final response a message id may be used again, while the operation before is still being ended."""
        running = self._running.get(request.command.message_id)
        if running is not None and running.cancellation is request.cancellation:
            del self._running[request.command.message_id]

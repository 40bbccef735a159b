"""N-EVENT-REPORT requests of a peer over an association that we opened (PS3.7 section 10.1.1)."""

import asyncio

import structlog

from imaging_services.adapters.dimse.connection import Connection
from imaging_services.adapters.dimse.messages import IncomingMessage, encode_message, error_comment, whole
from imaging_services.adapters.dimse.pdu import AbortReason, AbortSource, ProtocolViolation
from imaging_services.domain.dicom.command_set import MESSAGE_ID
from imaging_services.domain.dicom.dimse import DimseResponse, EventReportHandler, Status
from imaging_services.domain.errors import BackendUnavailable, ImagingError, InvalidInput, RetryableError
from imaging_services.domain.relay.services import PRINT_MANAGEMENT

log = structlog.get_logger(__name__)

_MOST_WAITING = 64
_END_SECONDS = 5.0  # in which those under way are answered before the association is released


class IncomingEvents:
    """Answers them one after another by the ``handler``; without one, as one that it refuses. ``sending`` is held while
    a message is sent; ``seconds`` is how long a data set may take to come."""

    def __init__(
        self, connection: Connection, sending: asyncio.Lock, seconds: float, handler: EventReportHandler | None
    ) -> None:
        self._connection, self._sending, self._seconds = connection, sending, seconds
        self._handler = handler
        self._turn = asyncio.Lock()
        self._answering: set[asyncio.Task[None]] = set()
        self._ended = False

    def received(self, message: IncomingMessage, max_pdu_length: int) -> None:
        """A request has come. Raises ``ProtocolViolation`` when it has no message id or too many wait."""
        if message.command.number(MESSAGE_ID, -1) < 0 or len(self._answering) >= _MOST_WAITING:
            raise ProtocolViolation(
                AbortReason.UNEXPECTED_PARAMETER, "event report without message id, or too many without an answer"
            )
        task = asyncio.get_running_loop().create_task(self._answer(message, max_pdu_length))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def end(self) -> None:
        """Answer what is under way, and nothing from now on: the peer reports it over another association."""
        if self._answering:
            await asyncio.wait(self._answering, timeout=_END_SECONDS)
        self.lost()

    def lost(self) -> None:
        """The association is over: nobody waits for answers."""
        self._ended = True
        for task in self._answering:
            task.cancel()

    async def _answer(self, message: IncomingMessage, max_pdu_length: int) -> None:
        try:
            async with self._turn:
                if self._ended and message.data is not None:
                    await message.data.drain()
                if self._ended:
                    return
                response = await self._response(message)
                encoded = encode_message(message.context.context_id, response.command, response.data, max_pdu_length)
                async with self._sending:
                    await self._connection.send([encoded])
        except (RetryableError, InvalidInput) as error:
            log.info("event report not answered", peer=self._connection.peer, why=str(error))

    async def _response(self, message: IncomingMessage) -> DimseResponse:
        data = await self._data(message)
        try:
            if self._handler is None:
                raise BackendUnavailable("nobody waits for events over this association")
            return await self._handler(message.context, message.command, data)
        except ImagingError as error:
            why = str(error)
        except Exception:
            log.exception("event report failed unforeseen", sop_class=message.context.abstract_syntax)
            why = ""
        # The state of a printer may be forgotten; anything else, such as the outcome of a storage commitment, is
        # refused for now, so that the peer reports it on an association of its own (PS3.4 section J.3.3).
        printing = message.context.abstract_syntax in PRINT_MANAGEMENT
        log.info(
            "event report not taken", peer=self._connection.peer, sop_class=message.context.abstract_syntax, why=why
        )
        if printing:
            return DimseResponse(message.command.response(Status.SUCCESS))
        return DimseResponse(
            message.command.response(Status.PROCESSING_FAILURE, error_comment=error_comment(why)),
        )

    async def _data(self, message: IncomingMessage) -> bytes | None:
        if message.data is None:
            return None
        try:
            async with asyncio.timeout(self._seconds):
                return await whole(message.data)
        except (TimeoutError, InvalidInput) as error:
            why = f"the data set of an event report did not end, or is too long: {error}"
            self._connection.abort(AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED, why)
            raise BackendUnavailable(why) from error

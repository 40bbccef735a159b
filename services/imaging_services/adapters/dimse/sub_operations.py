"""Requests that the acceptor of an association sends: C-STORE of a C-GET, N-EVENT-REPORT (PS3.7 9.1.3 and 10.1.1)."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

from imaging_services.adapters.dimse.connection import Connection
from imaging_services.adapters.dimse.messages import IncomingMessage, encode_message, whole
from imaging_services.adapters.dimse.pdu import AbortReason, AbortSource, ProtocolViolation
from imaging_services.adapters.dimse.sending import send_data_set
from imaging_services.domain.dicom.command_set import MESSAGE_ID, MESSAGE_ID_BEING_RESPONDED_TO, CommandSet
from imaging_services.domain.dicom.dimse import AcceptedContext, DimseResponse
from imaging_services.domain.errors import BackendUnavailable, DeadlineExceeded, InvalidInput


class BackwardRequests:
    """Implements ``SubOperations``. ``sending`` is held while a message is sent, as the fragments of two messages must
    not mix (PS3.8 annex E.2); ``seconds`` is the wait for a response."""

    def __init__(
        self,
        connection: Connection,
        contexts: Mapping[int, AcceptedContext],
        max_pdu_length: int,
        seconds: float,
        usable: Callable[[], bool],
    ) -> None:
        self._connection, self._contexts = connection, contexts
        self._max_pdu_length, self._seconds, self._usable = max_pdu_length, seconds, usable
        self._one = asyncio.Lock()
        self._message_id = 0
        self._response: asyncio.Future[IncomingMessage | None] | None = None
        self.sending = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Neither side has ended the association or asked for its end."""
        return self._usable()

    @property
    def busy(self) -> bool:
        """A request is under way."""
        return self._one.locked()

    async def store(self, context_id: int, command: CommandSet, data: bytes | AsyncIterator[bytes]) -> CommandSet:
        """C-STORE; the data set is sent as it comes. The association is aborted when it breaks off."""
        async with self._one:
            numbered = self._numbered(context_id, command)
            head = encode_message(context_id, numbered, None, self._max_pdu_length)
            try:
                async with self.sending:
                    await send_data_set(self._connection, head, context_id, data, self._max_pdu_length)
            except BaseException as error:
                self._abort(f"data set of a sub-operation broke off: {type(error).__name__}")
                raise
            return (await self._answer(numbered.message_id)).command

    async def request(self, context_id: int, command: CommandSet, data: bytes | None = None) -> DimseResponse:
        """A request that has one response."""
        async with self._one:
            numbered = self._numbered(context_id, command)
            async with self.sending:
                self._connection.write(encode_message(context_id, numbered, data, self._max_pdu_length))
                await self._connection.drain()
            return await self._answer(numbered.message_id)

    def response_received(self, message: IncomingMessage) -> None:
        """The peer has answered. Raises ``ProtocolViolation`` when nothing waits for it."""
        if self._response is None or self._response.done():
            raise ProtocolViolation(
                AbortReason.INVALID_PARAMETER, f"message {message.command.command_field:04X}H answers no request"
            )
        self._response.set_result(message)

    def lost(self) -> None:
        """The association is over: no response will come."""
        if self._response is not None and not self._response.done():
            self._response.set_result(None)

    def _numbered(self, context_id: int, command: CommandSet) -> CommandSet:
        if context_id not in self._contexts:
            raise InvalidInput(f"presentation context {context_id} was not accepted")
        if not self.is_open:
            raise BackendUnavailable(f"association with {self._connection.peer} is over")
        self._message_id = self._message_id % 0xFFFF + 1
        self._response = asyncio.get_running_loop().create_future()
        return CommandSet({**command.elements, MESSAGE_ID: self._message_id})

    async def _answer(self, message_id: int) -> DimseResponse:
        assert self._response is not None
        try:
            async with asyncio.timeout(self._seconds):
                message = await self._response
                if message is None:
                    raise BackendUnavailable(f"association with {self._connection.peer} is lost")
                data = await whole(message.data) if message.data is not None else None
        except InvalidInput as error:
            self._abort("response to a sub-operation is unusable")
            raise BackendUnavailable(f"response of {self._connection.peer} is unusable: {error}") from error
        except TimeoutError:
            self._abort("no response to a sub-operation")
            raise DeadlineExceeded(f"no response from {self._connection.peer} within {self._seconds:g} s") from None
        finally:
            self._response = None
        answered = message.command.number(MESSAGE_ID_BEING_RESPONDED_TO, -1)
        if answered != message_id:
            self._abort("response to another request")
            raise BackendUnavailable(f"{self._connection.peer} answered message {answered}, not {message_id}")
        return DimseResponse(message.command, data)

    def _abort(self, why: str) -> None:
        self._connection.abort(AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED, why)

"""An association that we opened: requests out, responses in, as many operations at a time as the peer has granted."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping

import structlog

from imaging_services.adapters.dimse.associate import AssociateAccept, decode_accept
from imaging_services.adapters.dimse.connection import Connection
from imaging_services.adapters.dimse.incoming_events import IncomingEvents
from imaging_services.adapters.dimse.incoming_stores import IncomingStores
from imaging_services.adapters.dimse.messages import IncomingMessage, encode_message, whole
from imaging_services.adapters.dimse.negotiation import both, granted_operations
from imaging_services.adapters.dimse.pdu import (
    RELEASE_RP,
    RELEASE_RQ,
    AbortReason,
    AbortSource,
    PduType,
    ProtocolViolation,
    decode_reject,
)
from imaging_services.adapters.dimse.sending import send_data_set
from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.adapters.dimse.user_information import UserInformation
from imaging_services.domain.dicom.command_set import (
    COMMAND_DATA_SET_TYPE,
    COMMAND_FIELD,
    MESSAGE_ID_BEING_RESPONDED_TO,
    NO_DATA_SET,
    STATUS,
    CommandField,
    CommandSet,
)
from imaging_services.domain.dicom.dimse import (
    PENDING,
    AcceptedContext,
    Cancellation,
    DimseResponse,
    EventReportHandler,
    Rejection,
    Role,
    StoreHandler,
)
from imaging_services.domain.errors import BackendUnavailable, DeadlineExceeded, InvalidInput

log = structlog.get_logger(__name__)

_CANCELLABLE = frozenset({CommandField.C_FIND_RQ, CommandField.C_MOVE_RQ, CommandField.C_GET_RQ})
_CANCEL_SECONDS = 5.0


class RequestedAssociation:
    """Implements ``Requestor``. Any failure within an operation aborts the association, as the two sides may no
    longer agree on where in a message they are."""

    def __init__(self, limits: AssociationLimits, events: EventReportHandler | None = None) -> None:
        self._limits = limits
        self._contexts: Mapping[int, AcceptedContext] = {}
        self._max_pdu_length = limits.max_sent_pdu_length
        self._roles: Mapping[str, Role] = {}
        self._extended: Mapping[str, bytes] = {}
        self._answer: AssociateAccept | Rejection | None = None
        self._operations = 1
        self._established = False
        self._releasing = False
        self._released = False
        self._over: str | None = None
        self._under_way: dict[int, deque[IncomingMessage]] = {}
        self._wake = asyncio.Event()
        self._room = asyncio.Semaphore(1)
        self._sending = asyncio.Lock()
        self.connection = Connection(self, limits)
        self._events = IncomingEvents(self.connection, self._sending, limits.dimse_timeout_seconds, events)
        self._stores = IncomingStores(self.connection, self._sending, limits.dimse_timeout_seconds)

    @property
    def contexts(self) -> Mapping[int, AcceptedContext]:
        """Accepted presentation contexts by id."""
        return self._contexts

    @property
    def is_open(self) -> bool:
        """Neither side has ended the association."""
        return self.connection.is_open

    @property
    def roles(self) -> Mapping[str, Role]:
        """Roles that the peer accepts for us, by SOP class UID."""
        return self._roles

    @property
    def extended(self) -> Mapping[str, bytes]:
        """Application information that the peer accepts, by SOP class UID."""
        return self._extended

    @property
    def operations(self) -> int:
        """How many operations may be under way; more wait."""
        return self._operations

    def establish(
        self, contexts: Mapping[int, AcceptedContext], asked: UserInformation, answer: UserInformation
    ) -> None:
        """The peer has accepted these contexts, and answered what was asked for besides."""
        self._contexts = contexts
        self._max_pdu_length = min(answer.max_pdu_length or self._max_pdu_length, self._max_pdu_length)
        self._roles = both(asked.roles, answer.roles)
        self._extended = {uid: value for uid, value in answer.extended.items() if uid in asked.extended}
        self._operations = granted_operations(asked, answer)
        self._room = asyncio.Semaphore(self._operations)
        self._established = True
        self.connection.open(contexts)

    async def answer(self) -> AssociateAccept | Rejection:
        """The peer's answer to the association request."""
        await self._until(lambda: self._answer is not None, self._limits.artim_timeout_seconds, "association answer")
        assert self._answer is not None
        return self._answer

    async def store(self, context_id: int, command: CommandSet, data: bytes | AsyncIterator[bytes]) -> CommandSet:
        """C-STORE. ``data`` is sent as it comes, in fragments of the length the peer allows; never held whole.

        Raises ``InvalidInput`` for a context that was not accepted, ``BackendUnavailable`` and ``DeadlineExceeded``.
        """
        self._check(context_id)
        async with self._operation(command.message_id):
            await self._send(context_id, command, data)
            return (await self._response(command.message_id)).command

    async def request(
        self,
        context_id: int,
        command: CommandSet,
        data: bytes | None = None,
        cancellation: Cancellation | None = None,
        takes: StoreHandler | None = None,
    ) -> AsyncIterator[DimseResponse]:
        """Any other request; responses up to and including the final one. Closed early, the operation is cancelled
        by C-CANCEL where PS3.7 has it, and the association aborted if that does not end it."""
        self._check(context_id)
        async with (
            self._operation(command.message_id),
            self._stores.taken_by(takes, lambda: self._max_pdu_length),
            self._cancelled_by(cancellation, context_id, command),
        ):
            await self._send(context_id, command, data)
            while True:
                response = await self._response(command.message_id)
                if response.command.status not in PENDING:
                    break
                try:
                    yield response
                except GeneratorExit:
                    await self._cancel(context_id, command)
                    return
        yield response

    async def release(self) -> None:
        """A-RELEASE and close; aborts when the peer does not answer."""
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(self._operations):  # those under way end first
                await stack.enter_async_context(self._room)
            await self._events.end()  # nothing may be sent behind the release request (PS3.8 section 9.2.3, Sta7)
            if not self.connection.is_open:
                return
            self._releasing = True
            self.connection.write(RELEASE_RQ)
            try:
                await self._until(
                    lambda: self._released, self._limits.artim_timeout_seconds, "answer to the release request"
                )
            except (BackendUnavailable, DeadlineExceeded) as error:
                log.info("association not released", peer=self.connection.peer, why=str(error))
                self._abort(str(error))
            finally:  # also when the release is cancelled
                self.connection.close()
        await self._gone()

    async def abort(self) -> None:
        """A-ABORT and close."""
        self._abort("aborted by this side")
        self.connection.close()
        await self._gone()

    # ConnectionUser

    def connected(self) -> None:
        """The association request follows."""

    def check_expected(self, kind: int) -> None:
        """PS3.8 table 9-10, for the requestor."""
        if not self._established:
            expected = kind in (PduType.A_ASSOCIATE_AC, PduType.A_ASSOCIATE_RJ) and self._answer is None
        elif kind == PduType.A_RELEASE_RP:
            expected = self._releasing
        else:
            expected = kind in (PduType.P_DATA_TF, PduType.A_RELEASE_RQ)
        if not expected:
            raise ProtocolViolation(AbortReason.UNEXPECTED_PDU, f"{PduType(kind).name} was not to be expected")

    def pdu_received(self, kind: int, body: bytes) -> None:
        """The answer to the association request, or a release from either side."""
        if kind == PduType.A_ASSOCIATE_AC:
            self._answer = decode_accept(body)
        elif kind == PduType.A_ASSOCIATE_RJ:
            self._answer = decode_reject(body)
            self.connection.close()
        elif kind == PduType.A_RELEASE_RP:
            self._released = True
        elif self._releasing:
            self.connection.write(RELEASE_RP)  # both asked at once; the answer to ours still comes (Sta11)
        else:
            self._over = "peer released the association"
            self.connection.finish(RELEASE_RP)
        self._wake.set()

    def message_received(self, message: IncomingMessage) -> None:
        """A response, an instance that a C-GET brings, or an event that the peer reports."""
        if message.command.command_field == CommandField.C_STORE_RQ:
            self._stores.received(message)
            return
        if message.command.command_field == CommandField.N_EVENT_REPORT_RQ:
            self._events.received(message, self._max_pdu_length)
            return
        if not message.command.command_field & 0x8000:
            raise ProtocolViolation(
                AbortReason.UNEXPECTED_PARAMETER,
                f"request {message.command.command_field:04X}H on an association that we opened",
            )
        answered = message.command.number(MESSAGE_ID_BEING_RESPONDED_TO, -1)
        if answered not in self._under_way:
            raise ProtocolViolation(AbortReason.INVALID_PARAMETER, f"response to message {answered}, not under way")
        self._under_way[answered].append(message)
        self._wake.set()

    def lost(self, why: str) -> None:
        """The association is over without release."""
        self._over = why
        self._events.lost()
        self._wake.set()

    def time_limit(self) -> tuple[float, str] | None:
        """None: each operation waits by itself."""
        return None

    # one operation

    async def _send(self, context_id: int, command: CommandSet, data: bytes | AsyncIterator[bytes] | None) -> None:
        encoded = encode_message(context_id, command, None, self._max_pdu_length)
        async with self._sending:  # the fragments of two messages must not mix (PS3.8 annex E.2)
            if data is None:
                await self.connection.send([encoded])
            else:
                await send_data_set(self.connection, encoded, context_id, data, self._max_pdu_length)

    @contextlib.asynccontextmanager
    async def _operation(self, message_id: int) -> AsyncIterator[None]:
        async with self._room:
            if not self.connection.is_open:
                raise BackendUnavailable(f"association with {self.connection.peer} is over: {self._over}")
            if message_id in self._under_way:
                raise InvalidInput(f"message id {message_id} is under way already")
            self._under_way[message_id] = deque()
            try:
                yield
            except BaseException as error:
                self._abort(f"operation failed: {type(error).__name__}")
                self.connection.close()
                raise
            finally:
                del self._under_way[message_id]

    async def _response(self, message_id: int) -> DimseResponse:
        seconds = self._limits.dimse_timeout_seconds
        messages, stores = self._under_way[message_id], self._stores
        while not messages:
            before = stores.count
            try:
                await self._until(lambda: bool(messages), seconds, "response")
            except DeadlineExceeded:
                if not stores.busy and stores.count == before:
                    raise
        message = messages.popleft()
        try:
            _ = message.command.status
            async with asyncio.timeout(seconds):
                data = await whole(message.data) if message.data is not None else None
        except TimeoutError:
            raise DeadlineExceeded(f"data set of a response from {self.connection.peer} did not end") from None
        except InvalidInput as error:
            raise BackendUnavailable(f"response of {self.connection.peer} is unusable: {error}") from error
        return DimseResponse(message.command, data)

    async def _cancel(self, context_id: int, command: CommandSet) -> None:
        if command.command_field not in _CANCELLABLE:
            self._abort("operation was left before its end")
            self.connection.close()
            return
        try:
            async with asyncio.timeout(min(_CANCEL_SECONDS, self._limits.dimse_timeout_seconds)):
                await self._send_cancel(context_id, command)
                while (await self._response(command.message_id)).command.number(STATUS) in PENDING:
                    pass
        except (TimeoutError, DeadlineExceeded, BackendUnavailable) as error:
            log.info("cancelled operation did not end", peer=self.connection.peer, why=str(error))
            self._abort("cancelled operation did not end")
            self.connection.close()

    async def _send_cancel(self, context_id: int, command: CommandSet) -> None:
        cancel = CommandSet(
            {
                COMMAND_FIELD: CommandField.C_CANCEL_RQ,
                MESSAGE_ID_BEING_RESPONDED_TO: command.message_id,
                COMMAND_DATA_SET_TYPE: NO_DATA_SET,
            }
        )
        async with self._sending:  # behind the request, and behind what another one has begun to send
            self.connection.write(encode_message(context_id, cancel, None, self._max_pdu_length))

    @contextlib.asynccontextmanager
    async def _cancelled_by(
        self, cancellation: Cancellation | None, context_id: int, command: CommandSet
    ) -> AsyncIterator[None]:
        """While the operation lasts, pass a cancellation on to the peer; its final response still comes."""
        if cancellation is None or command.command_field not in _CANCELLABLE:
            yield
            return

        async def pass_on() -> None:
            await cancellation.wait()
            await self._send_cancel(context_id, command)

        watching = asyncio.create_task(pass_on())
        try:
            yield
        finally:
            watching.cancel()

    def _check(self, context_id: int) -> None:
        if context_id not in self._contexts:
            raise InvalidInput(f"presentation context {context_id} was not accepted")

    def _abort(self, why: str) -> None:
        self.connection.abort(AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED, why)

    async def _gone(self) -> None:
        try:
            async with asyncio.timeout(1):
                await self.connection.gone.wait()
        except TimeoutError:
            self.connection.kill()

    async def _until(self, condition: Callable[[], bool], seconds: float, missing: str) -> None:
        peer = self.connection.peer
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    if self._over is not None:
                        raise BackendUnavailable(f"no {missing} from {peer}: {self._over}")
                    self._wake.clear()
                    await self._wake.wait()
        except TimeoutError:
            raise DeadlineExceeded(f"no {missing} from {peer} within {seconds:g} s") from None

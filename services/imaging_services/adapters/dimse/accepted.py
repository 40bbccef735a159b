"""An association that a peer opened: negotiation, then its requests one after another."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from uuid import uuid4

import structlog
from prometheus_client import Counter

from imaging_services.adapters.dimse.associate import (
    APPLICATION_CONTEXT,
    AssociateRequest,
    decode_request,
    encode_accept,
)
from imaging_services.adapters.dimse.connection import Connection
from imaging_services.adapters.dimse.messages import IncomingMessage
from imaging_services.adapters.dimse.negotiation import (
    accepted_contexts,
    accepted_information,
    operations_of_requestor,
    requested,
)
from imaging_services.adapters.dimse.operations import Operations
from imaging_services.adapters.dimse.pdu import (
    RELEASE_RP,
    AbortReason,
    AbortSource,
    PduType,
    ProtocolViolation,
    encode_reject,
)
from imaging_services.adapters.dimse.settings import AssociationLimits
from imaging_services.adapters.dimse.sub_operations import BackwardRequests
from imaging_services.adapters.dimse.users import Users
from imaging_services.domain.dicom.command_set import MESSAGE_ID, MESSAGE_ID_BEING_RESPONDED_TO, CommandField
from imaging_services.domain.dicom.dimse import (
    LOCAL_LIMIT_EXCEEDED,
    TEMPORARY_CONGESTION,
    Association,
    AssociationHandler,
    AssociationRequest,
    Cancellation,
    Negotiated,
    Rejection,
)
from imaging_services.domain.errors import BackendUnavailable, DeadlineExceeded, ImagingError, is_retryable

log = structlog.get_logger(__name__)

_WRONG_CONTEXT_NAME = Rejection(1, 1, 2, "application context name not supported")
_WRONG_VERSION = Rejection(1, 2, 2, "protocol version not supported")
_NO_REASON = Rejection(1, 1, 1, "refused by the service")
_MAX_WAITING = 64
_ESTABLISHED = Counter("imaging_dimse_associations_total", "associations established by peers")


class _State(Enum):
    AWAITING_REQUEST = auto()  # Sta2 of PS3.8 section 9.2
    NEGOTIATING = auto()  # Sta3
    ESTABLISHED = auto()  # Sta6
    RELEASING = auto()  # Sta8: the peer has asked for release, requests before it are being finished
    OVER = auto()


class AcceptedAssociation:
    """Runs one association; ``connection`` is its protocol for the event loop."""

    def __init__(
        self,
        handler: AssociationHandler,
        limits: AssociationLimits,
        admits: Callable[[], bool],
        on_connected: Callable[["AcceptedAssociation"], None],
        users: Users | None = None,
    ) -> None:
        self._handler = handler
        self._limits = limits
        self._admits = admits
        self._on_connected = on_connected
        self._users = users
        self._state = _State.AWAITING_REQUEST
        self._request: AssociateRequest | None = None
        self._waiting: deque[tuple[IncomingMessage, Cancellation]] = deque()
        self._cancellations: dict[int, Cancellation] = {}
        self._wake = asyncio.Event()
        self._operations: Operations | None = None
        self._backward: BackwardRequests | None = None
        self._under_way = 0
        self._window = 1
        self.connection = Connection(self, limits)

    @property
    def counts(self) -> bool:
        """It takes a place among the limited number of associations."""
        return self._state not in (_State.AWAITING_REQUEST, _State.OVER)

    @property
    def idle_seconds(self) -> float:
        """For how long nothing has been asked on the established association; 0 while anything is under way."""
        busy = self._under_way or self._waiting or self.connection.receiving
        if self._state is not _State.ESTABLISHED or busy or (self._backward is not None and self._backward.busy):
            return 0.0
        return self.connection.silent_seconds

    async def run(self) -> None:
        """Serve until the association is over, the handler knows, and the connection is closed."""
        try:
            await self._run()
        except Exception:
            log.exception("association failed", peer=self.connection.peer)
            self.shut_down()
        await self.connection.gone.wait()

    async def _run(self) -> None:
        request = await self._requested()
        if request is None:
            return
        association = await self._negotiate(request)
        if association is None:
            return
        _ESTABLISHED.inc()
        log.info(
            "association open",
            peer=self.connection.peer,
            calling=request.calling_ae_title,
            called=request.called_ae_title,
            contexts=len(association.contexts),
            implementation=request.user.implementation,
            association=association.association_id,
        )
        clean = False
        try:
            clean = await self._serve(association, request)
        finally:
            log.info("association over", association=association.association_id, clean=clean)
            await self._tell_closed(association, clean)

    def shut_down(self) -> None:
        """A-ABORT by this side."""
        self.connection.abort(AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED, "shutdown")
        self.connection.close()

    # ConnectionUser

    def connected(self) -> None:
        """The time for an association request (ARTIM) begins."""
        self._on_connected(self)

    def check_expected(self, kind: int) -> None:
        """PS3.8 table 9-10, for the acceptor."""
        if self._state is _State.AWAITING_REQUEST:
            expected = kind == PduType.A_ASSOCIATE_RQ
        else:
            expected = self._state is _State.ESTABLISHED and kind in (PduType.P_DATA_TF, PduType.A_RELEASE_RQ)
        if not expected:
            raise ProtocolViolation(
                AbortReason.UNEXPECTED_PDU, f"{PduType(kind).name} while {self._state.name.lower().replace('_', ' ')}"
            )

    def pdu_received(self, kind: int, body: bytes) -> None:
        """An association or release request."""
        if kind == PduType.A_ASSOCIATE_RQ:
            request = decode_request(body)
            if not self._admits():
                self._reject(request, LOCAL_LIMIT_EXCEEDED)
                return
            self._request = request
            self._state = _State.NEGOTIATING
        elif self.connection.in_message:
            raise ProtocolViolation(AbortReason.UNEXPECTED_PDU, "A-RELEASE-RQ within a message")
        else:
            self._state = _State.RELEASING
            if self._backward is not None:  # no response of the peer may come any more
                self._backward.lost()
        self._wake.set()

    def message_received(self, message: IncomingMessage) -> None:
        """Queue a request; a C-CANCEL-RQ acts on the one that runs or waits."""
        field = message.command.command_field
        if field == CommandField.C_CANCEL_RQ:
            self._cancel(message.command.number(MESSAGE_ID_BEING_RESPONDED_TO, -1))
            return
        if field & 0x8000 and self._backward is not None:
            self._backward.response_received(message)
            return
        if field & 0x8000 or message.command.number(MESSAGE_ID, -1) < 0:
            raise ProtocolViolation(
                AbortReason.INVALID_PARAMETER, f"message {field:04X}H is no request or lacks its message id"
            )
        if len(self._waiting) >= _MAX_WAITING:
            raise ProtocolViolation(AbortReason.UNEXPECTED_PARAMETER, "too many requests without waiting for responses")
        cancellation = self._cancellations[message.command.message_id] = Cancellation()
        self._waiting.append((message, cancellation))
        self._wake.set()

    def lost(self, why: str) -> None:
        """The association is over without release: what runs with responses ends, what waits is dropped."""
        if self._state is not _State.OVER:
            if self._state is not _State.AWAITING_REQUEST:
                log.info("association lost", peer=self.connection.peer, why=why)
            self._state = _State.OVER
        self._waiting.clear()
        if self._operations is not None:
            self._operations.lost()
        self._wake.set()

    def time_limit(self) -> tuple[float, str] | None:
        """ARTIM before the request, then none while a handler works on a complete message."""
        if self._state is _State.AWAITING_REQUEST:
            return self._limits.artim_timeout_seconds, "association request"
        if self.connection.receiving:
            return self._limits.dimse_timeout_seconds, "rest of a message"
        if self._state is _State.ESTABLISHED and not self._under_way:
            return self._limits.idle_timeout_seconds, "request"
        return None

    def _cancel(self, message_id: int) -> None:
        """Whoever sends a C-CANCEL right behind its request is faster than the task that begins it."""
        if self._operations is not None and self._operations.cancel(message_id):
            return
        if (cancellation := self._cancellations.get(message_id)) is not None:
            cancellation.request()

    # the association's task

    async def _requested(self) -> AssociateRequest | None:
        while self._request is None and self._state is not _State.OVER:
            await self._wake.wait()
            self._wake.clear()
        return self._request if self._state is not _State.OVER else None

    async def _negotiate(self, request: AssociateRequest) -> Association | None:
        domain_request = requested(request, uuid4().hex, self.connection.peer)
        decision = await self._decide(request, domain_request)
        if self._state is _State.OVER:
            return None
        if isinstance(decision, Rejection):
            self._reject(request, decision)
            return None
        accepted = accepted_contexts(request, decision)
        authenticated = self._users is not None
        information = accepted_information(request, decision, self._limits, authenticated=authenticated)
        answer = encode_accept(request, accepted, decision.refusals, information)
        self._window = operations_of_requestor(information)
        self._state = _State.ESTABLISHED
        self.connection.open(accepted)
        self.connection.write(answer)
        self._backward = BackwardRequests(
            self.connection,
            accepted,
            self._sendable(request),
            self._limits.dimse_timeout_seconds,
            lambda: self._state is _State.ESTABLISHED,
        )
        return Association(domain_request, accepted, self._backward, information.roles, information.extended)

    async def _decide(self, request: AssociateRequest, domain_request: AssociationRequest) -> Negotiated | Rejection:
        if not request.protocol_version & 1:
            return _WRONG_VERSION
        if request.application_context != APPLICATION_CONTEXT:
            return _WRONG_CONTEXT_NAME
        if self._users is not None and (refusal := self._users.refusal(request.user.user_identity)) is not None:
            return refusal
        try:
            async with asyncio.timeout(self._limits.dimse_timeout_seconds):
                return await self._handler.negotiate(domain_request)
        except ImagingError as error:
            log.warning("association cannot be served", peer=self.connection.peer, why=str(error))
            return TEMPORARY_CONGESTION if is_retryable(error) else _NO_REASON
        except Exception:
            log.exception("negotiation failed", peer=self.connection.peer)
            return TEMPORARY_CONGESTION

    def _reject(self, request: AssociateRequest, rejection: Rejection) -> None:
        log.warning(
            "association rejected",
            peer=self.connection.peer,
            calling=request.calling_ae_title,
            called=request.called_ae_title,
            why=rejection.why,
        )
        self._state = _State.OVER
        self.connection.finish(encode_reject(rejection))
        self._wake.set()

    async def _serve(self, association: Association, request: AssociateRequest) -> bool:
        """Requests one after another, or several at a time where that was negotiated (PS3.7 section D.3.3.3); True
        when the peer then released the association."""
        assert self._backward is not None
        sendable = self._sendable(request)
        operations = Operations(self._handler, association, self.connection, sendable, self._backward)
        self._operations = operations
        async with asyncio.TaskGroup() as performing:
            while await self._may_perform():
                message, cancellation = self._waiting.popleft()
                self._under_way += 1
                if self._window == 1:
                    await self._perform(operations, message, cancellation)
                else:
                    performing.create_task(self._perform(operations, message, cancellation))
        if self._state is _State.OVER:
            return False
        self._state = _State.OVER
        self.connection.finish(RELEASE_RP)
        return True

    async def _may_perform(self) -> bool:
        """Wait for a request and for room; False when none will come any more."""
        while self._state is not _State.OVER:
            if self._waiting and self._under_way < self._window:
                return True
            if not self._waiting and self._state is _State.RELEASING:
                return False
            self._wake.clear()
            await self._wake.wait()
        return False

    async def _perform(self, operations: Operations, message: IncomingMessage, cancellation: Cancellation) -> None:
        try:
            with contextlib.suppress(BackendUnavailable, DeadlineExceeded):  # lost: the loop sees it
                await operations.perform(message, cancellation)
        finally:
            if self._cancellations.get(message.command.message_id) is cancellation:
                del self._cancellations[message.command.message_id]
            self._under_way -= 1
            self._wake.set()
        self.connection.heard()

    def _sendable(self, request: AssociateRequest) -> int:
        limit = self._limits.max_sent_pdu_length
        return min(request.user.max_pdu_length or limit, limit)

    async def _tell_closed(self, association: Association, clean: bool) -> None:
        try:
            await self._handler.closed(association, clean)
        except Exception:
            log.exception("end of association failed", association=association.association_id)

"""What the DICOM upper layer and the services say to each other: associations, requests, responses.

Names follow PS3.7 and PS3.8. The upper layer itself is in ``adapters/dimse``.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from imaging_services.domain.dicom.command_set import (
    AFFECTED_SOP_CLASS_UID,
    AFFECTED_SOP_INSTANCE_UID,
    COMMAND_DATA_SET_TYPE,
    COMMAND_FIELD,
    ERROR_COMMENT,
    MESSAGE_ID,
    MESSAGE_ID_BEING_RESPONDED_TO,
    STATUS,
    CommandSet,
)

VERIFICATION = "1.2.840.10008.1.1"

_OF_EVERY_RESPONSE = frozenset(
    {
        AFFECTED_SOP_CLASS_UID,
        AFFECTED_SOP_INSTANCE_UID,
        COMMAND_DATA_SET_TYPE,
        COMMAND_FIELD,
        ERROR_COMMENT,
        MESSAGE_ID,
        MESSAGE_ID_BEING_RESPONDED_TO,
        STATUS,
    }
)


class Status(IntEnum):
    """Statuses of PS3.7 annex C and PS3.4 annexes B and C that this product sends by itself."""

    SUCCESS = 0x0000
    PENDING = 0xFF00
    PENDING_WARNING = 0xFF01
    CANCEL = 0xFE00
    SUB_OPERATIONS_WARNING = 0xB000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    INVALID_ARGUMENT = 0x0115
    NO_SUCH_SOP_CLASS = 0x0118
    CLASS_INSTANCE_CONFLICT = 0x0119
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NO_SUCH_ACTION = 0x0123
    NOT_AUTHORIZED = 0x0124
    DUPLICATE_TRANSACTION_UID = 0x0131
    DUPLICATE_INVOCATION = 0x0210
    UNRECOGNIZED_OPERATION = 0x0211
    MISTYPED_ARGUMENT = 0x0212
    RESOURCE_LIMITATION = 0x0213
    OUT_OF_RESOURCES = 0xA700
    UNABLE_TO_CALCULATE_MATCHES = 0xA701
    UNABLE_TO_PERFORM_SUB_OPERATIONS = 0xA702
    MOVE_DESTINATION_UNKNOWN = 0xA801
    DATA_SET_MISMATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000


PENDING = frozenset({int(Status.PENDING), int(Status.PENDING_WARNING)})
"""More responses follow."""


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """A presentation context as proposed (PS3.8 section 9.3.2.2); ``context_id`` is odd, 1 to 255.

    ``related_general`` are the SOP classes of the Storage Service Class that the abstract syntax specializes, where the
    requestor says so (common extended negotiation, PS3.7 section D.3.3.6)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    related_general: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Role:
    """Roles of the requestor for a SOP class (PS3.7 section D.3.3.4); without a selection it is SCU only."""

    scu: bool
    scp: bool


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """Who the requestor says to act for (PS3.7 section D.3.3.7): ``kind`` 1 is a user name, 2 a user name and a
    passcode, 3 to 5 are Kerberos, SAML and JSON Web Token. ``positive_response``: it wants to be told of acceptance."""

    kind: int
    positive_response: bool = False
    primary: bytes = field(default=b"", repr=False)
    secondary: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """A presentation context after negotiation, with its one transfer syntax."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class AssociationRequest:
    """An A-ASSOCIATE request as received. ``peer`` is the remote ``host:port``; AE titles are stripped.

    By SOP class UID: ``roles`` proposed, and ``extended``, the service-class-application-information (PS3.7 section
    D.3.3.5)."""

    association_id: str
    calling_ae_title: str
    called_ae_title: str
    contexts: tuple[ProposedContext, ...]
    max_pdu_length: int
    peer: str
    roles: Mapping[str, Role] = field(default_factory=dict)
    extended: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rejection:
    """An A-ASSOCIATE-RJ: result, source and reason of PS3.8 table 9-21; ``why`` is for the log."""

    result: int
    source: int
    reason: int
    why: str


CALLED_AE_NOT_RECOGNIZED = Rejection(1, 1, 7, "called AE title not recognized")
CALLING_AE_NOT_RECOGNIZED = Rejection(1, 1, 3, "calling AE title not recognized")
LOCAL_LIMIT_EXCEEDED = Rejection(2, 3, 2, "local limit of associations exceeded")
TEMPORARY_CONGESTION = Rejection(2, 3, 1, "temporary congestion")
USER_NOT_AUTHENTICATED = Rejection(1, 2, 1, "user identity not accepted")
"""PS3.7 section D.3.3.7.1 has no reason of its own for it: permanent, by the ACSE related function."""


@dataclass(frozen=True, slots=True)
class Association:
    """An established association: the request and what was accepted, by presentation context id; ``roles`` and
    ``extended`` as accepted, by SOP class UID."""

    request: AssociationRequest
    contexts: Mapping[int, AcceptedContext]
    sub_operations: "SubOperations | None" = None
    roles: Mapping[str, Role] = field(default_factory=dict)
    extended: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def association_id(self) -> str:
        """Random id of this association, unique between processes."""
        return self.request.association_id


class DataSetStream(Protocol):
    """The encoded data set of one message as it arrives: blocks of bytes, never joined, back-pressured.

    Iterate it once. Raises ``BackendUnavailable`` when the association is lost before the last fragment.
    """

    def __aiter__(self) -> AsyncIterator[bytes]: ...


class Cancellation:
    """C-CANCEL of one request (PS3.7 section 9.3.2.3). Unless the handler says ``handle``, its iterator is closed and
    the peer is answered FE00H; a handler that does gives its own final response, soon after ``requested``."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.handled = False

    @property
    def requested(self) -> bool:
        """The peer has cancelled."""
        return self._event.is_set()

    def handle(self) -> None:
        """The handler watches for the cancellation itself."""
        self.handled = True

    def request(self) -> None:
        """The peer cancels."""
        self._event.set()

    async def wait(self) -> None:
        """Return when the peer has cancelled."""
        await self._event.wait()


@dataclass(frozen=True, slots=True)
class DimseRequest:
    """A request message: its context, its command set, and its data set when it has one."""

    context: AcceptedContext
    command: CommandSet
    data: DataSetStream | None = None
    cancellation: Cancellation = field(default_factory=Cancellation)


@dataclass(frozen=True, slots=True)
class DimseResponse:
    """A response message; ``data`` is the encoded data set (identifiers are small) or None."""

    command: CommandSet
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """The outcome of a C-STORE: status and an optional Error Comment (0000,0902) of at most 64 characters. ``details``
    are further elements of a peer's response, such as Offending Element (PS3.7 annex C)."""

    status: int
    error_comment: str = ""
    details: Mapping[int, int | str | bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, response: CommandSet) -> "StoreAnswer":
        """What a response's command set says. Raises ``InvalidInput`` when it has no status."""
        details = {element: value for element, value in response.elements.items() if element not in _OF_EVERY_RESPONSE}
        return cls(response.status, response.text(ERROR_COMMENT), details)

    def to(self, request: CommandSet) -> CommandSet:
        """The response to a request."""
        response = request.response(self.status, error_comment=self.error_comment)
        return CommandSet({**self.details, **response.elements})


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What a service accepts of an association request: presentation context id → transfer syntax UID.

    ``refusals`` may give the result of PS3.8 table 9-18 for others (3 abstract syntax, 4 transfer syntaxes not
    supported); without it they get 3. ``roles`` and ``extended`` answer what was proposed; what was not is left out,
    and no role is accepted that was not proposed.
    """

    transfer_syntaxes: Mapping[int, str] = field(default_factory=dict)
    refusals: Mapping[int, int] = field(default_factory=dict)
    roles: Mapping[str, Role] = field(default_factory=dict)
    extended: Mapping[str, bytes] = field(default_factory=dict)


class SubOperations(Protocol):
    """Requests from the acceptor of an association to its requestor: C-STORE of a C-GET, N-EVENT-REPORT. One at a
    time; message ids are given here. Raises ``InvalidInput`` for a context that was not accepted,
    ``BackendUnavailable`` when the association is over and ``DeadlineExceeded`` when the peer does not answer."""

    @property
    def is_open(self) -> bool:
        """Neither side has ended the association or asked for its end."""
        ...

    async def store(self, context_id: int, command: CommandSet, data: bytes | AsyncIterator[bytes]) -> CommandSet:
        """Send a C-STORE-RQ and return the response's command set."""
        ...

    async def request(self, context_id: int, command: CommandSet, data: bytes | None = None) -> "DimseResponse":
        """Send a request that has one response, and return it."""
        ...


class AssociationHandler(Protocol):
    """What a service gives to a listener; one object serves all its associations."""

    async def negotiate(self, request: AssociationRequest) -> Negotiated | Rejection:
        """Decide on the association: which contexts with which transfer syntax, or a rejection."""
        ...

    async def store(self, association: Association, request: DimseRequest) -> StoreAnswer:
        """Handle a C-STORE. A raised ImagingError becomes its DIMSE status; what is left of the data is drained."""
        ...

    def serve(self, association: Association, request: DimseRequest) -> AsyncIterator[DimseResponse]:
        """Handle every other request with any number of responses; C-ECHO included."""
        ...

    async def closed(self, association: Association, clean: bool) -> None:
        """The association has ended: ``clean`` after A-RELEASE, else aborted or lost."""
        ...


StoreHandler = Callable[[DimseRequest], Awaitable[StoreAnswer]]
"""Handles a C-STORE request; a raised ImagingError becomes its DIMSE status."""

EventReportHandler = Callable[[AcceptedContext, CommandSet, bytes | None], Awaitable[DimseResponse]]
"""Gives the response to an N-EVENT-REPORT request with its Event Information; a raised ImagingError refuses it."""


class Requestor(Protocol):
    """An association that we opened."""

    @property
    def is_open(self) -> bool:
        """Neither side has ended it."""
        ...

    @property
    def contexts(self) -> Mapping[int, AcceptedContext]:
        """Accepted presentation contexts by id."""
        ...

    @property
    def roles(self) -> Mapping[str, Role]:
        """Roles that the peer accepts for us, by SOP class UID."""
        ...

    @property
    def extended(self) -> Mapping[str, bytes]:
        """Application information that the peer accepts, by SOP class UID."""
        ...

    @property
    def operations(self) -> int:
        """How many operations may be under way (PS3.7 section D.3.3.3); more wait. Their message ids have to differ."""
        ...

    async def store(self, context_id: int, command: CommandSet, data: "bytes | AsyncIterator[bytes]") -> CommandSet:
        """Send a C-STORE-RQ with its data set and return the response's command set."""
        ...

    def request(
        self,
        context_id: int,
        command: CommandSet,
        data: bytes | None = None,
        cancellation: Cancellation | None = None,
        takes: StoreHandler | None = None,
    ) -> AsyncIterator[DimseResponse]:
        """Send any other request; yields responses up to and including the final one, also when ``cancellation`` is
        requested meanwhile: then the peer is sent a C-CANCEL. Closed early, the operation is cancelled, too. The
        C-STOREs that the peer sends meanwhile, as a C-GET has it, are answered by ``takes``, one after another."""
        ...

    async def release(self) -> None:
        """A-RELEASE and close."""
        ...

    async def abort(self) -> None:
        """A-ABORT and close; never raises."""
        ...


class DicomPeer(Protocol):
    """A remote AE that can be called."""

    async def associate(
        self,
        *,
        calling_ae_title: str,
        called_ae_title: str,
        contexts: tuple[ProposedContext, ...],
        roles: Mapping[str, Role] | None = None,
        extended: Mapping[str, bytes] | None = None,
        events: EventReportHandler | None = None,
    ) -> Requestor:
        """Open an association. ``events`` answers the event reports that the peer sends over it, one after another.

        Raises ``Refused`` on A-ASSOCIATE-RJ permanent, ``OutOfResources`` on transient rejection,
        ``BackendUnavailable`` when the peer cannot be reached, ``DeadlineExceeded`` past the time limit.
        """
        ...

"""What the DICOM upper layer and the services say to each other: associations, requests, responses.

Names follow PS3.7 and PS3.8. The upper layer itself is in ``adapters/dimse``.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from imaging_services.domain.dicom.command_set import CommandSet

VERIFICATION = "1.2.840.10008.1.1"


class Status(IntEnum):
    """Statuses of PS3.7 annex C and PS3.4 annexes B and C that this product sends by itself."""

    SUCCESS = 0x0000
    PENDING = 0xFF00
    PENDING_WARNING = 0xFF01
    CANCEL = 0xFE00
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_SOP_CLASS = 0x0118
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORIZED = 0x0124
    UNRECOGNIZED_OPERATION = 0x0211
    MISTYPED_ARGUMENT = 0x0212
    OUT_OF_RESOURCES = 0xA700
    DATA_SET_MISMATCH = 0xA900
    CANNOT_UNDERSTAND = 0xC000


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """A presentation context as proposed (PS3.8 section 9.3.2.2); ``context_id`` is odd, 1 to 255."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """A presentation context after negotiation, with its one transfer syntax."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class AssociationRequest:
    """An A-ASSOCIATE request as received. ``peer`` is the remote ``host:port``; AE titles are stripped."""

    association_id: str
    calling_ae_title: str
    called_ae_title: str
    contexts: tuple[ProposedContext, ...]
    max_pdu_length: int
    peer: str


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


@dataclass(frozen=True, slots=True)
class Association:
    """An established association: the request and what was accepted, by presentation context id."""

    request: AssociationRequest
    contexts: Mapping[int, AcceptedContext]

    @property
    def association_id(self) -> str:
        """Random id of this association, unique between processes."""
        return self.request.association_id


class DataSetStream(Protocol):
    """The encoded data set of one message as it arrives: blocks of bytes, never joined, back-pressured.

    Iterate it once. Raises ``BackendUnavailable`` when the association is lost before the last fragment.
    """

    def __aiter__(self) -> AsyncIterator[bytes]: ...


@dataclass(frozen=True, slots=True)
class DimseRequest:
    """A request message: its context, its command set, and its data set when it has one."""

    context: AcceptedContext
    command: CommandSet
    data: DataSetStream | None = None


@dataclass(frozen=True, slots=True)
class DimseResponse:
    """A response message; ``data`` is the encoded data set (identifiers are small) or None."""

    command: CommandSet
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """The outcome of a C-STORE: status and an optional Error Comment (0000,0902) of at most 64 characters."""

    status: int
    error_comment: str = ""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What a service accepts of an association request: presentation context id → transfer syntax UID.

    ``refusals`` may give the result of PS3.8 table 9-18 for others (3 abstract syntax, 4 transfer syntaxes not
    supported); without it they get 3.
    """

    transfer_syntaxes: Mapping[int, str] = field(default_factory=dict)
    refusals: Mapping[int, int] = field(default_factory=dict)


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


class Requestor(Protocol):
    """An association that we opened."""

    @property
    def contexts(self) -> Mapping[int, AcceptedContext]:
        """Accepted presentation contexts by id."""
        ...

    async def store(self, context_id: int, command: CommandSet, data: "bytes | AsyncIterator[bytes]") -> CommandSet:
        """Send a C-STORE-RQ with its data set and return the response's command set."""
        ...

    def request(self, context_id: int, command: CommandSet, data: bytes | None = None) -> AsyncIterator[DimseResponse]:
        """Send any other request; yields responses up to and including the final one."""
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
    ) -> Requestor:
        """Open an association.

        Raises ``Refused`` on A-ASSOCIATE-RJ permanent, ``OutOfResources`` on transient rejection,
        ``BackendUnavailable`` when the peer cannot be reached, ``DeadlineExceeded`` past the time limit.
        """
        ...

"""What services need of a relay: ``adapters/nats/relay.py`` carries it, ``adapters/memory/relay.py`` is its twin."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from imaging_services.domain.dicom.dimse import (
    AssociationRequest,
    Cancellation,
    DimseResponse,
    Negotiated,
    Rejection,
    StoreAnswer,
)
from imaging_services.domain.dicom.storage_scp import StorageScp
from imaging_services.domain.relay.messages import AssociationNotice, Call, StoreMessage

DataSource = Callable[[], AsyncIterator[bytes]]
"""Opens a data set that has been received whole, as blocks of bytes; may be called again for another try."""


EventHandler = Callable[[Call, bytes | None], Awaitable[DimseResponse]]
"""Passes an event report on to the peer, and returns the response, with its Event Reply if there is one."""


class RelayLink(Protocol):
    """This end speaking to the other. Every method raises ``BackendUnavailable`` at once when the carrier is away or
    nobody listens, and ``DeadlineExceeded`` after the reply time-out."""

    async def store_durably(self, call: Call, data: AsyncIterable[bytes], *, urgent: bool = False) -> None:
        """Return when the instance is safe on its way. An ``urgent`` one waits behind urgent ones only. Raises
        ``OutOfResources`` when there is no room for it."""
        ...

    async def store_confirmed(self, call: Call, data: AsyncIterable[bytes]) -> StoreAnswer:
        """Hand the instance to the far side and wait for its status. Silence counts, not duration."""
        ...

    def request(
        self,
        call: Call,
        data: bytes | None = None,
        cancellation: Cancellation | None = None,
        requestor: StorageScp | None = None,
    ) -> AsyncIterator[DimseResponse]:
        """Any other DIMSE request; responses in order, up to the final one, also after a ``cancellation``, which is
        passed on. Closing the iterator cancels, too. Of a C-GET, the instances go to the ``requestor``, which takes
        those of the call's ``takes``; an instance that breaks off, or a requestor that has gone, is raised."""
        ...

    async def negotiate(self, request: AssociationRequest) -> Negotiated | Rejection:
        """What the far side's target accepts of an association request."""
        ...

    def hearing(self, association_id: str, handler: EventHandler) -> AbstractAsyncContextManager[None]:
        """Hand event reports that the other end sends over an association of this end to the handler, for the length of
        the block."""
        ...

    async def report(self, call: Call, data: bytes | None) -> DimseResponse:
        """Send an event report over the association of the call's origin, which is one of the other end; the response.
        Raises ``BackendUnavailable`` when it is not open any more, and what its handler raises."""
        ...

    async def announce(self, notice: AssociationNotice) -> None:
        """Tell the far side of an association; lost when nobody listens, never raises."""
        ...

    async def finish(self, notice: AssociationNotice) -> None:
        """Return when it is safe that the far side will be told of the association's end, after it has dealt with all
        that the association has stored durably. Until then it is renewed there."""
        ...


class RelayHandler(Protocol):
    """What a service does with what the other end says; one object serves everything, concurrently."""

    async def store(self, message: StoreMessage, data: DataSource) -> StoreAnswer:
        """Handle a C-STORE. A failure status or a raised error has a durable message tried again or set aside."""
        ...

    def serve(
        self,
        call: Call,
        data: bytes | None,
        cancellation: Cancellation | None = None,
        requestor: StorageScp | None = None,
    ) -> AsyncIterator[DimseResponse]:
        """Handle every other request. The iterator is closed when the caller is gone, and on C-CANCEL unless the
        handler handles that ``cancellation`` itself. ``requestor`` takes the instances of a C-GET."""
        ...

    async def negotiate(self, request: AssociationRequest) -> Negotiated | Rejection:
        """Say which presentation contexts the target accepts."""
        ...

    async def noticed(self, notice: AssociationNotice) -> None:
        """An association at the other end was opened, is still open or has closed. Raises a RetryableError for an end
        that could not be noted; it is told again."""
        ...


class RelayListener(Protocol):
    """This end hearing the other."""

    async def listen(self, handler: RelayHandler) -> None:
        """Serve the own channel until cancelled; what is under way is finished or given back."""
        ...

"""Twin of ``adapters/dimse``: a ``DicomPeer`` that hands requests straight to an ``AssociationHandler``."""

from collections.abc import AsyncIterator, Mapping
from uuid import uuid4

from imaging_services.domain.dicom.command_set import MESSAGE_ID, CommandSet
from imaging_services.domain.dicom.dimse import (
    PENDING,
    AcceptedContext,
    Association,
    AssociationHandler,
    AssociationRequest,
    Cancellation,
    DimseRequest,
    DimseResponse,
    EventReportHandler,
    ProposedContext,
    Rejection,
    Role,
    Status,
    StoreAnswer,
    StoreHandler,
)
from imaging_services.domain.errors import (
    AssociationRejected,
    BackendUnavailable,
    ImagingError,
    InvalidInput,
    OutOfResources,
    answer_for,
)

_TRANSIENT = 2


class MemoryPeer:
    """A remote AE within the process. ``associations`` are those opened so far, oldest first."""

    def __init__(self, handler: AssociationHandler) -> None:
        self._handler = handler
        self.associations: list[MemoryRequestor] = []

    async def associate(
        self,
        *,
        calling_ae_title: str,
        called_ae_title: str,
        contexts: tuple[ProposedContext, ...],
        roles: Mapping[str, Role] | None = None,
        extended: Mapping[str, bytes] | None = None,
        events: EventReportHandler | None = None,
    ) -> "MemoryRequestor":
        """Ask the handler; errors as of ``DicomPeer.associate``."""
        request = AssociationRequest(
            uuid4().hex, calling_ae_title, called_ae_title, contexts, 0, "memory:0", roles or {}, extended or {}
        )
        decision = await self._handler.negotiate(request)
        if isinstance(decision, Rejection):
            sentence = f"{called_ae_title} rejected the association: {decision.why}"
            raise OutOfResources(sentence) if decision.result == _TRANSIENT else AssociationRejected(sentence)
        accepted = {
            context.context_id: AcceptedContext(context.context_id, context.abstract_syntax, syntax)
            for context in contexts
            if (syntax := decision.transfer_syntaxes.get(context.context_id)) is not None
        }
        agreed = {
            uid: Role(role.scu and decision.roles[uid].scu, role.scp and decision.roles[uid].scp)
            for uid, role in request.roles.items()
            if uid in decision.roles
        }
        information = {uid: value for uid, value in decision.extended.items() if uid in request.extended}
        backward = _Backward(accepted, events)
        association = Association(request, accepted, backward, agreed, information)
        requestor = MemoryRequestor(self._handler, association, backward)
        self.associations.append(requestor)
        return requestor


class MemoryRequestor:
    """An association within the process: implements ``Requestor``."""

    def __init__(self, handler: AssociationHandler, association: Association, backward: "_Backward") -> None:
        self._handler = handler
        self.association = association
        self._backward = backward
        self.is_open = True

    @property
    def contexts(self) -> Mapping[int, AcceptedContext]:
        """Accepted presentation contexts by id."""
        return self.association.contexts

    @property
    def roles(self) -> Mapping[str, Role]:
        """Roles that the handler accepts for the requestor."""
        return self.association.roles

    @property
    def extended(self) -> Mapping[str, bytes]:
        """Application information that the handler accepts."""
        return self.association.extended

    @property
    def operations(self) -> int:
        """One operation at a time."""
        return 1

    async def store(self, context_id: int, command: CommandSet, data: bytes | AsyncIterator[bytes]) -> CommandSet:
        """Hand a C-STORE to the handler; its error becomes the status, as over the network."""
        context, blocks = self._context(context_id), _Blocks(data)
        try:
            answer = await self._handler.store(self.association, DimseRequest(context, command, blocks))
        except Exception as error:
            if blocks.failure is not None:
                await self._end(clean=False)
                raise blocks.failure from error
            answer = StoreAnswer(answer_for(error).dimse, str(error) if isinstance(error, ImagingError) else "")
        return command.response(answer.status, error_comment=answer.error_comment)

    async def request(
        self,
        context_id: int,
        command: CommandSet,
        data: bytes | None = None,
        cancellation: Cancellation | None = None,
        takes: StoreHandler | None = None,
    ) -> AsyncIterator[DimseResponse]:
        """Hand any other request to the handler; closed early, its iterator is closed."""
        self._backward.takes = takes
        blocks = None if data is None else _Blocks(data)
        request = DimseRequest(self._context(context_id), command, blocks, cancellation or Cancellation())
        responses = self._handler.serve(self.association, request)
        try:
            async for response in responses:
                yield response
                if response.command.status not in PENDING:
                    return
                if request.cancellation.requested and not request.cancellation.handled:
                    yield DimseResponse(command.response(Status.CANCEL))
                    return
            failure: tuple[int, str] = (Status.PROCESSING_FAILURE, "no final response")
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, the peer gets an answer
            failure = answer_for(error).dimse, str(error) if isinstance(error, ImagingError) else ""
        finally:
            self._backward.takes = None
            close = getattr(responses, "aclose", None)
            if close is not None:
                await close()
        yield DimseResponse(command.response(failure[0], error_comment=failure[1]))

    async def release(self) -> None:
        """End the association."""
        await self._end(clean=True)

    async def abort(self) -> None:
        """End the association without release."""
        await self._end(clean=False)

    async def _end(self, clean: bool) -> None:
        if self.is_open:
            self.is_open = self._backward.is_open = False
            await self._handler.closed(self.association, clean)

    def _context(self, context_id: int) -> AcceptedContext:
        if not self.is_open:
            raise BackendUnavailable("association is over")
        if context_id not in self.contexts:
            raise InvalidInput(f"presentation context {context_id} was not accepted")
        return self.contexts[context_id]


class _Backward:
    """Requests of the handler to the requestor: implements ``SubOperations``. ``takes`` is there during a C-GET."""

    def __init__(self, contexts: Mapping[int, AcceptedContext], events: EventReportHandler | None) -> None:
        self._contexts, self._events = contexts, events
        self._message_id = 0
        self.is_open = True
        self.takes: StoreHandler | None = None

    async def store(self, context_id: int, command: CommandSet, data: bytes | AsyncIterator[bytes]) -> CommandSet:
        """Hand a C-STORE to the requestor; its error becomes the status, as over the network."""
        if context_id not in self._contexts:
            raise InvalidInput(f"presentation context {context_id} was not accepted")
        if self.takes is None or not self.is_open:
            raise BackendUnavailable("association is over, or nobody takes instances over it")
        self._message_id += 1
        numbered, blocks = CommandSet({**command.elements, MESSAGE_ID: self._message_id}), _Blocks(data)
        try:
            answer = await self.takes(DimseRequest(self._contexts[context_id], numbered, blocks))
        except Exception as error:
            if blocks.failure is not None:
                self.is_open = False
                raise blocks.failure from error
            answer = StoreAnswer(answer_for(error).dimse, str(error) if isinstance(error, ImagingError) else "")
        return numbered.response(answer.status, error_comment=answer.error_comment)

    async def request(self, context_id: int, command: CommandSet, data: bytes | None = None) -> DimseResponse:
        """Hand an event report to whoever takes it; one that nobody takes is refused, as over the network."""
        if context_id not in self._contexts:
            raise InvalidInput(f"presentation context {context_id} was not accepted")
        if not self.is_open:
            raise BackendUnavailable("association is over")
        self._message_id += 1
        numbered = CommandSet({**command.elements, MESSAGE_ID: self._message_id})
        try:
            if self._events is None:
                raise BackendUnavailable("nobody waits for events over this association")
            return await self._events(self._contexts[context_id], numbered, data)
        except ImagingError as error:
            return DimseResponse(numbered.response(Status.PROCESSING_FAILURE, error_comment=str(error)))


class _Blocks:
    """A ``DataSetStream`` of bytes or of an iterator."""

    def __init__(self, data: bytes | AsyncIterator[bytes]) -> None:
        self._data = data
        self.failure: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if isinstance(self._data, bytes):
            yield self._data
            return
        try:
            async for block in self._data:
                yield block
        except Exception as error:
            self.failure = error
            raise BackendUnavailable("association lost within a data set") from error

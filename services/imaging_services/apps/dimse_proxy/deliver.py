"""What arrives over the relay goes to the target AE."""

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Protocol

import structlog

from imaging_services.apps.dimse_proxy.kept import KeptAssociations
from imaging_services.domain.dicom.command_set import MESSAGE_ID_BEING_RESPONDED_TO, CommandField, CommandSet
from imaging_services.domain.dicom.dimse import (
    LOCAL_LIMIT_EXCEEDED,
    AcceptedContext,
    AssociationRequest,
    Cancellation,
    DicomPeer,
    DimseRequest,
    DimseResponse,
    EventReportHandler,
    Negotiated,
    ProposedContext,
    Rejection,
    Requestor,
    Role,
    StoreAnswer,
)
from imaging_services.domain.dicom.storage_scp import StorageScp
from imaging_services.domain.errors import InvalidInput, OutOfResources, Refused, UnsupportedSopClass
from imaging_services.domain.relay.messages import AssociationNotice, AssociationState, Call, Origin, StoreMessage
from imaging_services.domain.relay.ports import DataSource
from imaging_services.domain.relay.services import PRINT_MANAGEMENT, RELAYED_SERVICES, is_normalized

log = structlog.get_logger(__name__)

_NO_REASON_GIVEN = 1
_FIRST = 1  # presentation context id of the request itself
_MOST_TAKEN = 127  # contexts besides it that an association has room for
_SCP = Role(scu=False, scp=True)
_FILM_SECONDS = 600.0  # a kept association that nobody uses
_EVENT_SECONDS = 3600.0  # the same, where an event report may be waited for
_ACCEPTED_SECONDS = 10.0  # what the target has accepted holds for other associations
_ACCEPTED_MOST = 64
_CANCELLABLE = frozenset({CommandField.C_FIND_RQ, CommandField.C_MOVE_RQ, CommandField.C_GET_RQ})


class StorePool(Protocol):
    """Associations to the target that are kept open for C-STORE."""

    def store(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax: str,
        data: DataSource,
        *,
        command: CommandSet | None = None,
    ) -> Awaitable[CommandSet]:
        """The response's command set, whatever its status."""
        ...


Report = Callable[[Call, bytes | None], Awaitable[DimseResponse]]
"""Sends an event report over an association at the other end, see ``RelayLink``."""


class _Recent:
    """What was accepted within the last seconds."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Hashable, tuple[float, Negotiated]] = OrderedDict()

    def get(self, key: Hashable) -> Negotiated | None:
        """None when it is not known, or no longer."""
        at, answer = self._answers.get(key, (0.0, None))
        return answer if time.monotonic() < at + _ACCEPTED_SECONDS else None

    def keep(self, key: Hashable, answer: Negotiated) -> None:
        """Accepted now."""
        self._answers[key] = (time.monotonic(), answer)
        self._answers.move_to_end(key)
        if len(self._answers) > _ACCEPTED_MOST:
            self._answers.popitem(last=False)


class TargetHandler:
    """Serves a relay's own channel, see ``RelayHandler``: one target AE, called by ``calling``."""

    def __init__(self, peer: DicomPeer, pool: StorePool, report: Report, *, calling: str, called: str) -> None:
        self._peer, self._pool, self._report = peer, pool, report
        self._calling, self._called = calling, called
        self._films, self._others = KeptAssociations(_FILM_SECONDS), KeptAssociations(_EVENT_SECONDS)
        self._accepted = _Recent()

    async def store(self, message: StoreMessage, data: DataSource) -> StoreAnswer:
        """C-STORE to the target; its status. Raises when it cannot be reached or accepts no such context."""
        call = message.call
        response = await self._pool.store(
            call.abstract_syntax,
            call.command.sop_instance_uid,
            call.transfer_syntax,
            data,
            command=call.command,
        )
        return StoreAnswer.of(response)

    async def serve(
        self,
        call: Call,
        data: bytes | None,
        cancellation: Cancellation | None = None,
        requestor: StorageScp | None = None,
    ) -> AsyncIterator[DimseResponse]:
        """Any other request, on an association of its own with the contexts that it needs; those of DIMSE-N on one for
        each association at the other end, to which the event reports go that the target sends over it. What a C-GET
        brings goes to the ``requestor``."""
        if cancellation is not None and call.command.command_field in _CANCELLABLE:
            cancellation.handle()
        async with self._association(call) as association:
            context_id = _accepted(association, call)
            if context_id is not None:
                takes = partial(_pass_on, requestor) if requestor is not None else None
                responses = association.request(context_id, call.command, data, cancellation, takes)
                async with aclosing(responses) as received:  # type: ignore[type-var]  # a generator behind its port
                    async for response in received:
                        yield response
        if context_id is None:
            raise UnsupportedSopClass(f"{self._called} does not accept {call.abstract_syntax}")

    async def negotiate(self, request: AssociationRequest) -> Negotiated | Rejection:
        """Ask the target itself, by an association with the same contexts; what it accepts holds for some seconds."""
        key = (request.contexts, tuple(request.roles.items()), tuple(request.extended.items()))
        answer = self._accepted.get(key)
        if answer is None:
            try:
                requestor = await self._associate(request.contexts, request.roles, request.extended)
            except Refused as error:
                return Rejection(1, 1, _NO_REASON_GIVEN, str(error))
            except OutOfResources:
                return LOCAL_LIMIT_EXCEEDED
            accepted = {context_id: context.transfer_syntax for context_id, context in requestor.contexts.items()}
            answer = Negotiated(accepted, roles=requestor.roles, extended=requestor.extended)
            self._accepted.keep(key, answer)
            await self._leave(requestor, ended=True)
        return answer

    async def noticed(self, notice: AssociationNotice) -> None:
        """A target AE is not told of associations at the other end, but the one kept for it is released."""
        if notice.state in (AssociationState.LEFT, AssociationState.CLOSED):
            await self._films.release(notice.origin.association_id)
            await self._others.release(notice.origin.association_id)

    async def close(self) -> None:
        """Release what is kept open."""
        await self._films.close()
        await self._others.close()

    @asynccontextmanager
    async def _association(self, call: Call) -> AsyncIterator[Requestor]:
        contexts, roles = _proposed(call)
        extended = {call.abstract_syntax: call.extended} if call.extended else {}
        kept = self._films if call.abstract_syntax in PRINT_MANAGEMENT else self._others
        key = (call.origin.association_id, (contexts, call.extended))
        # A film needs it; others do without, and what is reported comes over a new association.
        if is_normalized(call.command) and (kept is self._films or kept.has_room(key)):
            events = partial(self._reported, call.origin)
            async with kept.using(key, partial(self._associate, contexts, roles, extended, events)) as one:
                yield one
            return
        requestor = await self._associate(contexts, roles, extended)
        ended = False
        try:
            yield requestor
            ended = True
        finally:
            await self._leave(requestor, ended)

    async def _associate(
        self,
        contexts: tuple[ProposedContext, ...],
        roles: Mapping[str, Role],
        extended: Mapping[str, bytes],
        events: EventReportHandler | None = None,
    ) -> Requestor:
        return await self._peer.associate(
            calling_ae_title=self._calling,
            called_ae_title=self._called,
            contexts=contexts,
            roles=roles,
            extended=extended,
            events=events,
        )

    async def _reported(
        self, origin: Origin, context: AcceptedContext, command: CommandSet, data: bytes | None
    ) -> DimseResponse:
        """What the target reports goes to the association at the other end; its response comes back."""
        call = Call(origin, context.abstract_syntax, context.transfer_syntax, command)
        response = await self._report(call, data)
        answered = {MESSAGE_ID_BEING_RESPONDED_TO: command.message_id}
        return DimseResponse(CommandSet({**response.command.elements, **answered}), response.data)

    async def _leave(self, requestor: Requestor, ended: bool) -> None:
        await (requestor.release() if ended else requestor.abort())


def _proposed(call: Call) -> tuple[tuple[ProposedContext, ...], dict[str, Role]]:
    """The contexts that a request needs, and the roles (PS3.7 section D.3.3.4): for an event report, that of the SCP of
    its SOP class; for a C-GET, that of the SCP of what its requestor takes. For a DIMSE-N request they are all in which
    its requestor may ask or be sent an event report, so that they are the same for each."""
    first = ProposedContext(_FIRST, call.abstract_syntax, (call.transfer_syntax,))
    if is_normalized(call.command):
        own = (call.abstract_syntax, call.transfer_syntax)
        printing = call.abstract_syntax in PRINT_MANAGEMENT
        others = [one for one in call.hears if (one[0] in PRINT_MANAGEMENT) == printing]
        asked = sorted({own, *others[:_MOST_TAKEN]})
        return tuple(ProposedContext(_FIRST + 2 * n, uid, (syntax,)) for n, (uid, syntax) in enumerate(asked)), {}
    if call.command.command_field == CommandField.N_EVENT_REPORT_RQ:
        return (first,), {call.abstract_syntax: _SCP}
    if call.command.command_field != CommandField.C_GET_RQ:
        return (first,), {}
    takes = [one for one in call.takes or () if one[0] not in RELAYED_SERVICES][:_MOST_TAKEN]
    storage = (ProposedContext(_FIRST + 2 * n, uid, (syntax,)) for n, (uid, syntax) in enumerate(takes, start=1))
    return (first, *storage), dict.fromkeys((uid for uid, _ in takes), _SCP)


def _accepted(association: Requestor, call: Call) -> int | None:
    wanted = (call.abstract_syntax, call.transfer_syntax)
    contexts = association.contexts.items()
    return next((key for key, one in contexts if (one.abstract_syntax, one.transfer_syntax) == wanted), None)


async def _pass_on(requestor: StorageScp, request: DimseRequest) -> StoreAnswer:
    """An instance that the target sends goes to the requestor at the other end; its status comes back."""
    if request.data is None:
        raise InvalidInput("C-STORE without a data set")
    context = request.context
    response = await requestor.store(
        context.abstract_syntax, context.transfer_syntax, request.command, aiter(request.data)
    )
    return StoreAnswer.of(response)

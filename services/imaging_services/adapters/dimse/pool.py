"""Associations to one AE that are kept open and used again for C-STORE."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import structlog

from imaging_services.adapters.dimse.contexts import MAX_CONTEXTS, propose
from imaging_services.domain.dicom.command_set import MESSAGE_ID, CommandSet, store_request
from imaging_services.domain.dicom.dimse import DicomPeer, Requestor
from imaging_services.domain.errors import (
    BackendUnavailable,
    Refused,
    RetryableError,
    UnsupportedSopClass,
)

log = structlog.get_logger(__name__)

Context = tuple[str, str]
"""SOP class UID and transfer syntax UID."""
DataSet = bytes | Callable[[], AsyncIterator[bytes]]
"""An encoded data set, or what opens it as blocks; opened again for the second try."""


@dataclass(eq=False, slots=True)
class _Pooled:
    requestor: Requestor
    proposed: frozenset[Context]
    accepted: dict[Context, int]
    number: int
    busy: int = 0
    fresh: bool = True
    message_id: int = 0
    expiry: asyncio.TimerHandle | None = field(default=None)

    def next_message_id(self) -> int:
        self.message_id = self.message_id % 0xFFFF + 1
        return self.message_id


class AssociationPool:
    """Stores instances at one AE over at most ``max_associations`` associations, over each as many at a time as its
    peer has granted; each is closed after ``idle_seconds`` without work. Contexts are negotiated as they are needed:
    one for each SOP class and transfer syntax, all those used lately in each new association."""

    def __init__(
        self,
        peer: DicomPeer,
        calling_ae_title: str,
        called_ae_title: str,
        max_associations: int = 4,
        idle_seconds: float = 30,
    ) -> None:
        self._peer = peer
        self._calling = calling_ae_title
        self._called = called_ae_title
        self._idle_seconds = idle_seconds
        self._most = max_associations
        self._open: list[_Pooled] = []
        self._opening = self._opened = 0
        self._changed = asyncio.Event()
        self._known: OrderedDict[Context, None] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    async def store(
        self,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax: str,
        data: DataSet,
        *,
        extra_contexts: Iterable[Context] = (),
        command: CommandSet | None = None,
    ) -> CommandSet:
        """C-STORE; returns the response's command set, whatever its status.

        ``command`` replaces the request that is made from the UIDs (its message id is set here). A kept association
        that turns out broken is replaced once. Raises ``UnsupportedSopClass`` or ``Refused`` when the peer does not
        take the SOP class or the transfer syntax, and the errors of ``DicomPeer.associate`` and ``Requestor.store``.
        """
        context = (sop_class_uid, transfer_syntax)
        self._remember([*extra_contexts, context])
        request = command or store_request(sop_class_uid, sop_instance_uid)
        pooled = await self._take(context)
        try:
            return await self._store(pooled, context, request, data)
        except _BrokenError as error:
            log.info("kept association was broken", called=self._called, why=str(error))
            self._drop_idle()
        return await self._store(await self._take(context, newer_than=pooled.number), context, request, data)

    async def close(self) -> None:
        """Release what is idle; call when no store is under way."""
        self._drop_idle()
        while self._closing:
            await asyncio.gather(*self._closing)

    async def _store(self, pooled: _Pooled, context: Context, request: CommandSet, data: DataSet) -> CommandSet:
        context_id = pooled.accepted.get(context)
        if context_id is None:
            self._keep(pooled)
            raise self._refusal(pooled, context)
        numbered = CommandSet({**request.elements, MESSAGE_ID: pooled.next_message_id()})
        body = data if isinstance(data, bytes) else data()
        try:
            response = await pooled.requestor.store(context_id, numbered, body)
        except BaseException as error:
            self._release(pooled, abort=True)
            if isinstance(error, BackendUnavailable) and not pooled.fresh:
                raise _BrokenError(str(error)) from error
            raise
        pooled.fresh = False
        self._keep(pooled)
        return response

    async def _take(self, context: Context, newer_than: int = 0) -> _Pooled:
        """An association with room that knows the context, opened when there is none; wait when there are too many."""
        while True:
            for pooled in reversed(self._open):
                room = pooled.busy < pooled.requestor.operations and pooled.number > newer_than
                if room and context in pooled.proposed:
                    return self._occupied(pooled)
            if len(self._open) + self._opening < self._most:
                return self._occupied(await self._opened_for(context))
            idle = next((pooled for pooled in self._open if not pooled.busy), None)
            if idle is not None:  # none of them knows the context: the one unused longest makes room
                self._expire(idle)
                continue
            self._changed.clear()
            await self._changed.wait()

    def _occupied(self, pooled: _Pooled) -> _Pooled:
        pooled.busy += 1
        if pooled.expiry is not None:
            pooled.expiry.cancel()
        return pooled

    async def _opened_for(self, context: Context) -> _Pooled:
        self._opening += 1
        try:
            pooled = await self._associate(context)
        finally:
            self._opening -= 1
            self._changed.set()
        self._open.append(pooled)
        return pooled

    async def _associate(self, context: Context) -> _Pooled:
        wanted = [*self._known]
        if context not in self._known:
            wanted = [*wanted[1 - MAX_CONTEXTS :], context]
        proposed = propose([(sop_class, (syntax,)) for sop_class, syntax in wanted])
        requestor = await self._peer.associate(
            calling_ae_title=self._calling, called_ae_title=self._called, contexts=proposed
        )
        accepted = {
            (item.abstract_syntax, item.transfer_syntax): context_id for context_id, item in requestor.contexts.items()
        }
        self._opened += 1
        return _Pooled(requestor, frozenset(wanted), accepted, self._opened)

    def _remember(self, contexts: Iterable[Context]) -> None:
        for context in contexts:
            self._known[context] = None
            self._known.move_to_end(context)
        while len(self._known) > MAX_CONTEXTS:
            self._known.popitem(last=False)

    def _refusal(self, pooled: _Pooled, context: Context) -> UnsupportedSopClass | Refused:
        sop_class, syntax = context
        if any(accepted == sop_class for accepted, _ in pooled.accepted):
            return Refused(f"{self._called} does not accept {sop_class} in transfer syntax {syntax}")
        return UnsupportedSopClass(f"{self._called} does not accept {sop_class} (transfer syntax {syntax})")

    def _keep(self, pooled: _Pooled) -> None:
        """One operation less is under way."""
        pooled.busy -= 1
        self._changed.set()
        if pooled not in self._open or pooled.busy:
            return
        self._open.remove(pooled)  # the one used last is taken first
        self._open.append(pooled)
        pooled.expiry = asyncio.get_running_loop().call_later(self._idle_seconds, self._expire, pooled)

    def _expire(self, pooled: _Pooled) -> None:
        self._release(pooled)

    def _drop_idle(self) -> None:
        for pooled in [pooled for pooled in self._open if not pooled.busy]:
            self._expire(pooled)

    def _release(self, pooled: _Pooled, abort: bool = False) -> None:
        if pooled not in self._open:  # another operation has found it broken
            return
        self._open.remove(pooled)
        self._changed.set()
        if pooled.expiry is not None:
            pooled.expiry.cancel()
        ending = pooled.requestor.abort() if abort else pooled.requestor.release()
        task = asyncio.ensure_future(_quietly(ending))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class _BrokenError(RetryableError):
    """A kept association failed in a way that a new one may not."""


async def _quietly(ending: Awaitable[None]) -> None:
    with contextlib.suppress(RetryableError):
        await ending

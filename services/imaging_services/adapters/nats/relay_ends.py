"""Ends of associations, which wait in the work queue behind the association's stores.

An end is told to the handler when the streams hold no store of the association any more: each is then recorded, or a
dead letter. While it waits, the association counts as open here, whatever has become of the sender's proxy.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.adapters.nats.relay_places import RelayPlace
from imaging_services.domain.errors import InvalidInput, RetryableError
from imaging_services.domain.relay.messages import AssociationNotice, AssociationState
from imaging_services.domain.relay.ports import RelayHandler

log = structlog.get_logger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds between looks at the stores that are left
_NO_PROGRESS = 15 * 60.0  # seconds without one store less, while the receiver works
_LOOK = 5.0  # seconds between looks for ends that wait
_REMEMBERED = 16_384


@dataclass(slots=True)
class _Left:
    """Stores of an association that are left, and since when it has been so many."""

    stores: int
    since: float


@dataclass(slots=True)
class _Waiting:
    notice: AssociationNotice
    renewed_at: float = 0.0


class AssociationEnds:
    """One process's part in those of one place. ``away`` says that the receiver cannot be reached: then no end is
    due."""

    def __init__(self, place: RelayPlace, handler: RelayHandler, away: Callable[[], bool]) -> None:
        self._js, self._subjects, self._handler, self._away = place.js, place.subjects, handler, away
        self._left: OrderedDict[str, _Left] = OrderedDict()
        self._waiting: dict[str, _Waiting] = {}

    def is_end(self, message: Msg) -> bool:
        """A message of the work queue that is no store."""
        return message.subject.startswith(self._subjects.end("*").removesuffix("*"))

    async def settle(self, message: Msg) -> None:
        """Tell the handler, or give the message back for later. Raises nats-py's errors and RetryableErrors: it is
        then delivered again."""
        try:
            notice = AssociationNotice.from_headers(message.headers or {})
        except InvalidInput as error:
            log.error("end of an association cannot be read", stream=self._subjects.stream, error=str(error))
            await message.term()
            return
        association_id = notice.origin.association_id
        left = await self._stores_left(association_id)
        if left and self._may_wait(association_id, left):
            tries = message.metadata.num_delivered
            await message.nak(delay=min(_FIRST_PAUSE * 2 ** min(tries - 1, 10), _LONGEST_PAUSE))
            return
        if left:
            log.warning("association ended, its last stores are not waited for", association=association_id, left=left)
        try:
            await self._handler.noticed(notice)
        except RetryableError as error:
            log.warning("end of an association is told again", association=association_id, error=str(error))
            await message.nak(delay=1)
            return
        await message.ack()
        self._left.pop(association_id, None)

    async def renew(self) -> None:
        """Tell the handler of every end that waits, in this stream's whole length, that its association counts as
        open; until cancelled."""
        while True:
            pause = _LOOK
            try:
                await self._look()
                pause = min([_LOOK, *(one.notice.lease_seconds / 3 for one in self._waiting.values())])
                await self._renew(pause)
            except RetryableError as error:
                log.debug("ends of associations not looked for", stream=self._subjects.stream, error=str(error))
            await asyncio.sleep(pause)

    async def _stores_left(self, association_id: str) -> int:
        with nats_errors("looking for an association's stores"):
            return sum([await self._count(stream, subject) for stream, subject in self._places(association_id)])

    def _places(self, association_id: str) -> list[tuple[str, str]]:
        """Where its stores wait, the urgent ones and the others."""
        names = self._subjects
        return [
            (names.stream, names.store(association_id)),
            (names.stream, names.store(association_id, "*")),
            (names.urgent_stream, names.urgent(association_id)),
            (names.urgent_stream, names.urgent(association_id, "*")),
        ]

    async def _count(self, stream: str, subject: str) -> int:
        try:
            state = (await self._js.stream_info(stream, subjects_filter=subject)).state
        except NotFoundError:
            if stream == self._subjects.urgent_stream:  # its sender knows no urgent ones
                return 0
            raise
        return sum((state.subjects or {}).values())

    def _may_wait(self, association_id: str, left: int) -> bool:
        now, known = time.monotonic(), self._left.get(association_id)
        if known is None or known.stores != left or self._away():
            self._left[association_id] = known = _Left(left, now)
            self._left.move_to_end(association_id)
            if len(self._left) > _REMEMBERED:
                self._left.popitem(last=False)
        return now - known.since < _NO_PROGRESS

    async def _look(self) -> None:
        stream = self._subjects.stream
        with nats_errors("looking for ends of associations"):
            try:
                info = await self._js.stream_info(stream, subjects_filter=self._subjects.end("*"))
            except NotFoundError:
                self._waiting.clear()
                return
            present = set(info.state.subjects or {})
            for subject in self._waiting.keys() - present:
                del self._waiting[subject]
            for subject in present - self._waiting.keys():
                try:
                    headers = (await self._js.get_last_msg(stream, subject)).headers or {}
                    self._waiting[subject] = _Waiting(AssociationNotice.from_headers(headers))
                except (NotFoundError, InvalidInput):
                    continue  # dealt with meanwhile, or about to be

    async def _renew(self, pause: float) -> None:
        for one in list(self._waiting.values()):
            if one.renewed_at + one.notice.lease_seconds / 3 - pause < time.monotonic():
                await self._handler.noticed(replace(one.notice, state=AssociationState.RENEWED))
                one.renewed_at = time.monotonic()

"""How far the near side of a request is, told to the far side."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import chain, repeat

import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.domain.dicom.command_set import CommandSet
from imaging_services.domain.dicom.dimse import Cancellation
from imaging_services.domain.errors import ImagingError
from imaging_services.domain.relay.messages import (
    H_BLOCKS,
    H_COMMAND,
    H_KIND,
    H_SEQUENCE,
    H_SUB_OPERATION,
    ControlKind,
    ReplyKind,
    encode_command,
)

log = structlog.get_logger(__name__)

_CREDIT_EVERY = 32  # responses taken between two notices to the far side
_CANCEL_PAUSES = (0.1, 0.5, 2.0, 5.0)  # seconds; the far side may not listen yet when it is told first
_BLOCKS_EVERY = 2  # blocks of sub-operations passed on between two


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply of the far side, which is no sign of life and no failure."""

    kind: ReplyKind
    message: Msg


class Progress:
    """Tells the far side how many responses have been taken, that somebody still waits, and a C-CANCEL. Every notice
    says all of it again: one that is lost is made up for by the next."""

    def __init__(self, client: Callable[[], Client], subject: str) -> None:
        self._client, self._subject = client, subject
        self._taken = self._told = 0
        self._blocks = self._blocks_told = 0
        self._answer: tuple[int, CommandSet] | None = None
        self.finished = False

    def take(self) -> None:
        """A message of a response has been taken."""
        self._taken += 1

    async def tell_if_due(self) -> None:
        """Tell when enough has been taken. Raises as NATS does."""
        if self._taken - self._told >= _CREDIT_EVERY:
            await self._tell(ControlKind.TAKEN)

    async def take_block(self) -> None:
        """A block of a sub-operation goes on to the peer."""
        self._blocks += 1
        if self._blocks - self._blocks_told >= _BLOCKS_EVERY:
            await self._tell(ControlKind.TAKEN)

    async def answer(self, sub_operation: int, response: CommandSet) -> None:
        """The peer has answered a sub-operation."""
        self._answer = sub_operation, response
        await self._tell(ControlKind.TAKEN)

    async def _tell(self, kind: ControlKind) -> None:
        self._told, self._blocks_told = self._taken, self._blocks
        headers = {H_KIND: str(kind), H_SEQUENCE: str(self._taken), H_BLOCKS: str(self._blocks)}
        if self._answer is not None:
            headers |= {H_SUB_OPERATION: str(self._answer[0]), H_COMMAND: encode_command(self._answer[1])}
        with nats_errors("telling the far side"):
            await self._client().publish(self._subject, headers=headers)

    @asynccontextmanager
    async def told(self, every: float, cancellation: Cancellation | None, *, gone: bool = False) -> AsyncIterator[None]:
        """Tell at intervals, also while whoever takes the responses is slow; of the cancellation, too, and cancel when
        left unfinished. ``gone``: whoever takes the instances of a C-GET has gone then."""

        async def pass_on() -> None:
            if cancellation is None:
                return
            await cancellation.wait()
            for pause in chain(_CANCEL_PAUSES, repeat(_CANCEL_PAUSES[-1])):
                with suppress(ImagingError):
                    await self._tell(ControlKind.CANCEL)
                await asyncio.sleep(pause)

        async def beat() -> None:
            while True:
                await asyncio.sleep(every)
                try:
                    await self._tell(ControlKind.TAKEN)
                except ImagingError as error:
                    log.debug("far side not told", error=str(error))

        tasks = [asyncio.create_task(beat()), asyncio.create_task(pass_on())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if not self.finished:
                try:
                    await self._tell(ControlKind.CANCEL)
                    if gone:
                        await self._tell(ControlKind.GONE)
                except ImagingError as error:
                    log.debug("far side not told", error=str(error))

"""The near side of one request as the far side sees it: what it has taken, and whether it is still there."""

import asyncio
import time
from collections.abc import Callable

from nats.aio.msg import Msg

from imaging_services.domain.dicom.command_set import CommandSet
from imaging_services.domain.dicom.dimse import Cancellation
from imaging_services.domain.errors import DeadlineExceeded, InvalidInput
from imaging_services.domain.relay.messages import (
    H_BLOCKS,
    H_COMMAND,
    H_KIND,
    H_SEQUENCE,
    H_SILENCE,
    H_SUB_OPERATION,
    ControlKind,
    Headers,
    decode_command,
    header,
    number,
)

_CREDIT = 128  # responses sent ahead of what the near side has taken
_BLOCKS = 8  # blocks of sub-operations sent ahead of what the near side has passed on


class Caller:
    """``silence``: seconds without a sign of life after which it has left."""

    def __init__(self, silence: float, cancellation: Cancellation) -> None:
        self._silence, self.cancellation = silence, cancellation
        self.sent = 0
        self._heard_at = self._advanced_at = time.monotonic()
        self._responses = self._taken = 0
        self._blocks = self._blocks_taken = 0
        self._answer: tuple[int, CommandSet] | None = None
        self._news = asyncio.Condition()
        self._leaving = asyncio.Event()
        self.why = "caller silent"

    async def heard(self, message: Msg) -> None:
        """A control message has come."""
        headers = message.headers or {}
        self._heard_at = time.monotonic()
        kind = headers.get(H_KIND)
        if kind == ControlKind.CANCEL:
            self.cancellation.request()
            if not self.cancellation.handled:
                self._leave("cancelled")
        elif kind == ControlKind.GONE:
            self._leave("caller gone")
        if H_SEQUENCE in headers:
            await self._take(headers)

    def number(self) -> str:
        """The number of the next message to the near side, which tells from it whether one is missing."""
        self.sent += 1
        return str(self.sent - 1)

    async def response_credit(self) -> None:
        """Wait until one more message of a response may be sent. Raises as ``answered`` does."""
        await self._until(lambda: self._responses < self._taken + _CREDIT)
        self._responses += 1

    async def block_credit(self) -> None:
        """Wait until one more block of a sub-operation may be sent. Raises as ``answered`` does."""
        await self._until(lambda: self._blocks < self._blocks_taken + _BLOCKS)
        if self._blocks == self._blocks_taken:
            self._advanced_at = time.monotonic()
        self._blocks += 1

    async def answered(self, sub_operation: int) -> CommandSet:
        """The response to a sub-operation. Raises ``DeadlineExceeded`` when the near side, though it is there, has
        passed on nothing for the time of its silence: then a message to it is lost."""
        await self._until(lambda: self._answer is not None and self._answer[0] == sub_operation)
        assert self._answer is not None
        return self._answer[1]

    async def left(self) -> None:
        """Return when the caller has cancelled, has gone, or has been silent for too long."""
        while (remaining := self._heard_at + self._silence - time.monotonic()) > 0:
            try:
                await asyncio.wait_for(self._leaving.wait(), remaining)
            except TimeoutError:
                continue
            return

    def _leave(self, why: str) -> None:
        self.why = why
        self._leaving.set()

    async def _take(self, headers: Headers) -> None:
        async with self._news:
            self._taken = max(self._taken, number(headers, H_SEQUENCE))
            if H_BLOCKS in headers and (blocks := number(headers, H_BLOCKS)) > self._blocks_taken:
                self._blocks_taken, self._advanced_at = blocks, self._heard_at
            if H_SUB_OPERATION in headers:
                self._answer = number(headers, H_SUB_OPERATION), decode_command(header(headers, H_COMMAND))
            self._news.notify_all()

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Looks again with every sign of life, which come several in the time of silence."""
        async with self._news:
            while not condition():
                behind = self._blocks > self._blocks_taken
                if behind and time.monotonic() > self._advanced_at + self._silence:
                    raise DeadlineExceeded(f"the near side has passed nothing on for {self._silence:g} s")
                await self._news.wait()


def silence_of(headers: Headers) -> float:
    """Seconds of silence that a request allows. Raises ``InvalidInput``."""
    try:
        return max(float(header(headers, H_SILENCE)), 0.1)
    except ValueError as error:
        raise InvalidInput(f"relay message with a broken header: {error}") from error

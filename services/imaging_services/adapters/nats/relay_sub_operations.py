"""The sub-operations of a C-GET on their way back: C-STOREs from the far side to the requestor at the near side.

Each travels in blocks among the replies to the request; the near side says how many it has passed on, and how the peer
has answered. Only a few blocks are on their way, so that memory follows neither the instances nor the peer's speed.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import structlog

from imaging_services.adapters.nats.relay_caller import Caller
from imaging_services.adapters.nats.relay_progress import Progress, Reply
from imaging_services.domain.dicom.command_set import CommandSet
from imaging_services.domain.dicom.storage_scp import Context, StorageScp
from imaging_services.domain.errors import (
    BackendUnavailable,
    ImagingError,
    InvalidInput,
    UnsupportedSopClass,
    answer_for,
)
from imaging_services.domain.relay.messages import (
    H_ABSTRACT,
    H_COMMAND,
    H_KIND,
    H_LAST,
    H_SEQUENCE,
    H_SUB_OPERATION,
    H_TRANSFER_SYNTAX,
    ReplyKind,
    decode_command,
    encode_command,
    header,
    number,
)

log = structlog.get_logger(__name__)

BLOCK = 256 * 1024
"""Bytes, at most."""

Send = Callable[[bytes, dict[str, str]], Awaitable[None]]
"""Sends one reply."""


class DistantScp:
    """The requestor at the near side, as the far side sees it: implements ``StorageScp``."""

    def __init__(self, send: Send, caller: Caller, contexts: Sequence[Context], longest: int) -> None:
        self._send, self._caller, self._block = send, caller, min(BLOCK, longest)
        self._contexts = frozenset(contexts)
        self._count = 0
        self._turn = asyncio.Lock()

    @property
    def contexts(self) -> Sequence[Context]:
        """See ``StorageScp``."""
        return tuple(sorted(self._contexts))

    async def store(
        self, sop_class_uid: str, transfer_syntax: str, command: CommandSet, data: AsyncIterator[bytes]
    ) -> CommandSet:
        """See ``StorageScp``."""
        if (sop_class_uid, transfer_syntax) not in self._contexts:
            raise UnsupportedSopClass(f"the requestor does not take {sop_class_uid} in {transfer_syntax}")
        async with self._turn:
            self._count += 1
            more = {
                H_ABSTRACT: sop_class_uid,
                H_TRANSFER_SYNTAX: transfer_syntax,
                H_COMMAND: encode_command(command),
            }
            try:
                async for block, last in _cut(data, self._block):
                    await self._caller.block_credit()
                    await self._reply(ReplyKind.SUB_OPERATION, block, more | ({H_LAST: "1"} if last else {}))
                    more = {}
            except Exception:
                if not more:
                    await self._reply(ReplyKind.BROKEN_OFF, b"", {})
                raise
            return await self._caller.answered(self._count)

    async def _reply(self, kind: ReplyKind, block: bytes, more: dict[str, str]) -> None:
        headers = {H_KIND: kind, H_SEQUENCE: self._caller.number(), H_SUB_OPERATION: str(self._count), **more}
        await self._send(block, headers)


async def _cut(data: AsyncIterator[bytes], size: int) -> AsyncIterator[tuple[bytes, bool]]:
    """Blocks of one size, the last one with True, which may be empty."""
    buffer = bytearray()
    async for block in data:
        buffer += block
        while len(buffer) > size:
            yield bytes(buffer[:size]), False
            del buffer[:size]
    yield bytes(buffer), True


@asynccontextmanager
async def performed(
    replies: AsyncIterator[Reply], requestor: StorageScp, progress: Progress
) -> AsyncIterator[AsyncIterator[Reply]]:
    """The near side: hand the sub-operations among the replies to the requestor, and go on with the others."""
    performing = _Performing(requestor, progress)
    pump = asyncio.create_task(performing.pump(replies))
    try:
        yield performing.others()
    finally:
        tasks = [pump, *performing.tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Performing:
    """Whoever takes the other replies may wait for a sub-operation to end, as both go over one association; so they
    are read apart. What waits in the queues is bounded by the far side's credit."""

    def __init__(self, requestor: StorageScp, progress: Progress) -> None:
        self._requestor, self._progress = requestor, progress
        self._others: asyncio.Queue[Reply | Exception | None] = asyncio.Queue()
        self._incoming: _Incoming | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    async def others(self) -> AsyncIterator[Reply]:
        """The replies that are no sub-operations. Raises what reading them or a sub-operation raises."""
        while (reply := await self._others.get()) is not None:
            if isinstance(reply, Exception):
                raise reply
            yield reply

    async def pump(self, replies: AsyncIterator[Reply]) -> None:
        """Read until the end."""
        try:
            async for reply in replies:
                if reply.kind is ReplyKind.SUB_OPERATION:
                    self._block(reply)
                elif reply.kind is ReplyKind.BROKEN_OFF:
                    await self._break_off()
                else:
                    self._others.put_nowait(reply)
            await self._break_off()
        except Exception as error:  # noqa: BLE001 - it is raised to whoever reads the others
            self._others.put_nowait(error)
            if self._incoming is not None:
                self._incoming.break_off()
        self._others.put_nowait(None)

    def _block(self, reply: Reply) -> None:
        headers = reply.message.headers or {}
        if H_COMMAND in headers:
            self._incoming = incoming = _Incoming(self._progress)
            context = header(headers, H_ABSTRACT), header(headers, H_TRANSFER_SYNTAX)
            command = decode_command(headers[H_COMMAND])
            task = asyncio.create_task(self._perform(number(headers, H_SUB_OPERATION), context, command, incoming))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        if self._incoming is None:
            raise InvalidInput("a block of a sub-operation came before its command")
        self._incoming.add(reply.message.data, last=H_LAST in headers)

    async def _break_off(self) -> None:
        """No more of an instance will come: what that comes to is raised before what follows."""
        if self._incoming is not None:
            self._incoming.break_off()
        if self.tasks:
            await asyncio.wait(self.tasks)

    async def _perform(self, count: int, context: Context, command: CommandSet, incoming: "_Incoming") -> None:
        blocks = incoming.blocks()
        try:
            try:
                response = await self._requestor.store(*context, command, blocks)
            except (InvalidInput, UnsupportedSopClass) as error:  # nothing of it has been sent
                log.warning("sub-operation not passed on", sop_instance=command.sop_instance_uid, why=str(error))
                async for _ in blocks:
                    pass
                response = command.response(answer_for(error).dimse, error_comment=str(error))
            await self._progress.answer(count, response)
        except ImagingError as error:
            self._others.put_nowait(error)
        except Exception as error:
            log.exception("sub-operation failed unforeseen", sop_instance=command.sop_instance_uid)
            self._others.put_nowait(error)


class _Incoming:
    """The data set of one sub-operation as it comes."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._queue: asyncio.Queue[tuple[bytes, bool] | None] = asyncio.Queue()
        self._whole = False

    def add(self, block: bytes, *, last: bool) -> None:
        self._whole = last
        self._queue.put_nowait((block, last))

    def break_off(self) -> None:
        """No more will come."""
        if not self._whole:
            self._queue.put_nowait(None)

    async def blocks(self) -> AsyncIterator[bytes]:
        last = False
        while not last:
            item = await self._queue.get()
            if item is None:
                raise BackendUnavailable("the far side broke an instance off")
            block, last = item
            await self._progress.take_block()
            if block:
                yield block

"""C-STORE requests of a peer that we have asked for instances: the sub-operations of a C-GET (PS3.7 section 9.1.3)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import structlog

from imaging_services.adapters.dimse.connection import Connection
from imaging_services.adapters.dimse.data_set import IncomingDataSet
from imaging_services.adapters.dimse.messages import IncomingMessage, encode_message, error_comment
from imaging_services.adapters.dimse.pdu import AbortReason, AbortSource, ProtocolViolation
from imaging_services.domain.dicom.dimse import DimseRequest, Status, StoreAnswer, StoreHandler
from imaging_services.domain.errors import BackendUnavailable, ImagingError, InvalidInput, RetryableError, answer_for

log = structlog.get_logger(__name__)

_MOST_WAITING = 64


class IncomingStores:
    """Answers them one after another while a C-GET of ours is under way. ``sending`` is held while a message is sent;
    ``seconds`` is how long the peer may be silent within a data set."""

    def __init__(self, connection: Connection, sending: asyncio.Lock, seconds: float) -> None:
        self._connection, self._sending, self._seconds = connection, sending, seconds
        self._waiting: asyncio.Queue[IncomingMessage] = asyncio.Queue()
        self._taking = False
        self.count = 0
        """Begun and ended, of all so far: a sign of life of the peer while there is no response."""
        self.busy = False
        """One is being taken."""

    def received(self, message: IncomingMessage) -> None:
        """A request has come. Raises ``ProtocolViolation`` when none was to be expected."""
        if not self._taking or self._waiting.qsize() >= _MOST_WAITING:
            raise ProtocolViolation(
                AbortReason.UNEXPECTED_PARAMETER, "C-STORE request without a C-GET, or without waiting for responses"
            )
        self._waiting.put_nowait(message)

    @asynccontextmanager
    async def taken_by(self, handler: StoreHandler | None, max_pdu_length: Callable[[], int]) -> AsyncIterator[None]:
        """Requests may come during the block, unless there is no handler."""
        if handler is None:
            yield
            return
        self._taking = True
        task = asyncio.create_task(self._take_all(handler, max_pdu_length))
        try:
            yield
        finally:
            self._taking = False
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _take_all(self, handler: StoreHandler, max_pdu_length: Callable[[], int]) -> None:
        while True:
            message = await self._waiting.get()
            self.busy, self.count = True, self.count + 1
            try:
                await self._take(message, handler, max_pdu_length())
            except (RetryableError, InvalidInput) as error:  # the operation finds the association over
                log.info("sub-operation not answered", peer=self._connection.peer, why=str(error))
            finally:
                self.busy, self.count = False, self.count + 1

    async def _take(self, message: IncomingMessage, handler: StoreHandler, max_pdu_length: int) -> None:
        answer = await self._answer(message, handler)
        if message.data is not None:
            async for _ in self._blocks(message.data):
                pass
        response = replace(answer, error_comment=error_comment(answer.error_comment)).to(message.command)
        async with self._sending:
            await self._connection.send([encode_message(message.context.context_id, response, None, max_pdu_length)])

    async def _answer(self, message: IncomingMessage, handler: StoreHandler) -> StoreAnswer:
        data = self._blocks(message.data) if message.data is not None else None
        try:
            return await handler(DimseRequest(message.context, message.command, data))
        except ImagingError as error:
            log.warning("sub-operation failed", sop_instance=message.command.sop_instance_uid, why=str(error))
            return StoreAnswer(answer_for(error).dimse, str(error))
        except Exception:
            log.exception("sub-operation failed unforeseen", sop_instance=message.command.sop_instance_uid)
            return StoreAnswer(Status.PROCESSING_FAILURE)

    async def _blocks(self, data: IncomingDataSet) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(self._seconds):
                    block = await anext(data, None)
            except TimeoutError:
                why = f"the peer was silent for {self._seconds:g} s within a data set"
                self._connection.abort(AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED, why)
                raise BackendUnavailable(why) from None
            if block is None:
                return
            yield block

"""Jobs in a JetStream work queue: they outlive the process that took them, and any process of the service does them."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError, ServiceUnavailableError

from imaging_services.adapters.nats.connection import nats_errors, while_connected
from imaging_services.adapters.nats.relay_pull import ENVELOPE, Pull
from imaging_services.adapters.nats.relay_room import Room
from imaging_services.adapters.nats.relay_settings import RelaySettings
from imaging_services.adapters.nats.relay_streams import ensure_stream
from imaging_services.domain.errors import Conflict, OutOfResources, RetryableError, is_retryable
from imaging_services.domain.jobs import Job, JobHandler, NotYet, delay_after
from imaging_services.domain.nats_names import token

log = structlog.get_logger(__name__)

_WRONG_LAST_SEQUENCE = 10071  # of the subject: one job of this key is there already
_HEADER_ROOM = 1024


class NatsJobs:
    """``Jobs`` of one kind. ``client`` returns the connection, or raises ``BackendUnavailable`` while there is none;
    ``connected`` waits for the first one. At most ``limit`` jobs wait or are being done."""

    def __init__(
        self,
        kind: str,
        settings: RelaySettings,
        client: Callable[[], Client],
        connected: Callable[[], Awaitable[Client]],
        *,
        limit: int = 10_000,
        concurrency: int = 4,
        patience: float = 1.0,
    ) -> None:
        self._kind, self._settings, self._client, self._connected = kind, settings, client, connected
        self._limit, self._concurrency, self._patience = limit, concurrency, patience
        root = settings.nats.subject_root
        self._stream = f"{token(root)}-{settings.channel}-jobs-{kind}"
        self._subjects = f"{root}.{settings.channel}.jobs.{kind}"
        self._put_off: dict[int, int] = {}  # by sequence number; of other processes' it is not known

    async def put(self, key: str, body: bytes) -> None:
        """See ``Jobs.put``. Raises ``OutOfResources`` when the server has no room for one so long."""
        client = self._client()
        if len(body) > client.max_payload - _HEADER_ROOM:
            raise OutOfResources(f"a job of {len(body)} bytes is longer than NATS takes")
        with nats_errors("handing in a job"):
            try:
                await self._publish(client, key, body)
            except NoStreamResponseError:
                await ensure_stream(await self._jetstream(client), self._config())
                await self._publish(client, key, body)
            except APIError as error:
                if error.err_code == _WRONG_LAST_SEQUENCE:
                    raise Conflict("a job of the same key is not done yet") from error
                raise

    async def work(self, handler: JobHandler) -> None:
        """See ``Jobs.work``; NATS restarts and lost streams are survived."""
        client = await self._connected()
        while True:
            try:
                await self._consume(client, handler)
            except* RetryableError as group:
                log.warning("jobs interrupted", stream=self._stream, errors=[str(error) for error in group.exceptions])
            await asyncio.sleep(1)

    async def _publish(self, client: Client, key: str, body: bytes) -> None:
        js = client.jetstream()  # the subject alone says where
        subject = f"{self._subjects}.{hashlib.sha256(key.encode()).hexdigest()[:32]}"
        headers = {str(api.Header.EXPECTED_LAST_SUBJECT_SEQUENCE.value): "0"}
        seconds = self._settings.silence_seconds
        await while_connected(client, js.publish(subject, body, timeout=seconds, stream=self._stream, headers=headers))

    async def _consume(self, client: Client, handler: JobHandler) -> None:
        js = await self._jetstream(client)
        with nats_errors(f"preparing jobs of {self._stream}"):
            await ensure_stream(js, self._config())
            await js.add_consumer(self._stream, self._consumer())
        next_subject = f"{js._prefix}.CONSUMER.MSG.NEXT.{self._stream}.worker"
        largest = client.max_payload + ENVELOPE
        room = Room(self._concurrency, self._concurrency * client.max_payload, largest, joined=False)
        pull = Pull(client, next_subject, room.lane())
        messages = pull.messages()
        async with asyncio.TaskGroup() as tasks:
            try:
                with nats_errors(f"doing jobs of {self._stream}"):
                    async for message in messages:
                        tasks.create_task(self._take(message, handler, pull))
            finally:
                await messages.aclose()  # type: ignore[attr-defined]  # an async generator behind its interface

    async def _take(self, message: Msg, handler: JobHandler, pull: Pull) -> None:
        """One delivery. Nothing but a cancellation is raised: one job's trouble is not the others'."""
        try:
            async with self._in_progress(message):
                await self._do(message, handler)
        except asyncio.CancelledError:
            with suppress(nats.errors.Error, OSError):
                await message.nak()
            raise
        except (nats.errors.Error, OSError) as error:
            log.warning("job could not be settled, it comes again", kind=self._kind, error=repr(error))
        finally:
            pull.done(message)

    async def _do(self, message: Msg, handler: JobHandler) -> None:
        tries, accepted_at = message.metadata.num_delivered, message.metadata.timestamp
        try:
            await handler(Job(message.data, tries, accepted_at))
        except Exception as error:  # noqa: BLE001 - whatever the handler raises is settled here, by its type
            if is_retryable(error):
                put_off = self._put_off_so_far(message, error)
                delay = delay_after(tries, error, put_off) * self._patience
                level = "debug" if isinstance(error, NotYet) else "warning"
                getattr(log, level)(
                    "job will be tried again", kind=self._kind, tries=tries, seconds=delay, error=repr(error)
                )
                await message.nak(delay)
                return
            log.error("job dropped", kind=self._kind, tries=tries, error=repr(error))
            self._put_off.pop(message.metadata.sequence.stream, None)
            await message.term()
            return
        self._put_off.pop(message.metadata.sequence.stream, None)
        await message.ack()

    def _put_off_so_far(self, message: Msg, error: Exception) -> int:
        """How often it was not this job's turn."""
        sequence = message.metadata.sequence.stream
        if isinstance(error, NotYet):
            self._put_off[sequence] = self._put_off.pop(sequence, 0) + 1
            if len(self._put_off) > self._limit:  # others have done some of them
                del self._put_off[next(iter(self._put_off))]
        return self._put_off.get(sequence, 0)

    @asynccontextmanager
    async def _in_progress(self, message: Msg) -> AsyncIterator[None]:
        """Tell the server at a third of the ack time that the job is still being done."""

        async def keep() -> None:
            while True:
                await asyncio.sleep(self._settings.ack_wait_seconds / 3)
                with suppress(nats.errors.Error, OSError):  # the next one may reach it
                    await message.in_progress()

        keeper = asyncio.create_task(keep())
        try:
            yield
        finally:
            keeper.cancel()

    async def _jetstream(self, client: Client) -> JetStreamContext:
        """Of the own domain. Of the only one that is named, where the own one has no JetStream, or a former version has
        left the jobs there alone."""
        own, named = client.jetstream(), self._settings.sole_receive_domain
        if named is None:
            return own
        with nats_errors(f"looking for jobs of {self._stream}"):
            try:
                if await _has(own, self._stream):
                    return own
            except (NoRespondersError, ServiceUnavailableError):
                return client.jetstream(domain=named)
            there = client.jetstream(domain=named)
            return there if await _has(there, self._stream) else own

    def _consumer(self) -> api.ConsumerConfig:
        return api.ConsumerConfig(
            durable_name="worker",
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self._settings.ack_wait_seconds,
            max_deliver=-1,
            max_ack_pending=self._limit,
        )

    def _config(self) -> api.StreamConfig:
        return api.StreamConfig(
            name=self._stream,
            description=f"{self._kind}: promised and not done yet",
            subjects=[f"{self._subjects}.*"],
            retention=api.RetentionPolicy.WORK_QUEUE,
            storage=api.StorageType.FILE,
            discard=api.DiscardPolicy.NEW,
            max_msgs=self._limit,
            max_bytes=self._settings.stream_max_bytes or -1,
            num_replicas=self._settings.stream_replicas,
        )


async def _has(js: JetStreamContext, stream: str) -> bool:
    try:
        await js.stream_info(stream)
    except NotFoundError:
        return False
    return True

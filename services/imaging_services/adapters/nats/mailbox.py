"""Mailboxes of the event bridge: a work-queue stream in which the hub and each edge have a subject of their own."""

from collections.abc import AsyncIterator, Iterable, Sequence

from nats.aio.client import Client
from nats.js.api import RetentionPolicy
from nats.js.errors import NoStreamResponseError

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.adapters.nats.consumer import Consumption, DurableConsumer
from imaging_services.adapters.nats.dead_letters import DeadLetterBox
from imaging_services.adapters.nats.limits import require_room
from imaging_services.adapters.nats.policy import EventPolicy
from imaging_services.adapters.nats.streams import ensure_stream, stream_config
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.events.nats_binding import deduplication_id, encode_nats_structured
from imaging_services.domain.events.subjects import MailboxSubjects
from imaging_services.domain.nats_names import token
from imaging_services.domain.ports import DeadLetter, EventHandler

HUB = "hub"


class JetStreamMailboxes:
    """Events in structured mode, kept until the owner of the mailbox has handled them.

    Whoever comes first creates the stream; each participant adds the subjects it needs and takes none away.
    """

    def __init__(self, client: Client, root: str, policy: EventPolicy | None = None) -> None:
        self._client = client
        self._subjects = MailboxSubjects(root)
        self._policy = policy or EventPolicy()
        self._js = client.jetstream(domain=self._policy.domain)
        self._known: set[str] = {HUB}
        self._letters = DeadLetterBox(
            client=client,
            stream=self._subjects.dead_letter_stream,
            subject=self._subjects.dead_letters,
            redrive_subject=lambda letter: self._subject(letter.consumer),
            prepare=self._prepare_all,
            domain=self._policy.domain,
        )

    async def prepare(self, mailboxes: Iterable[str]) -> None:
        """Make the streams exist with the hub's and these mailboxes. Raises a RetryableError."""
        self._known.update(mailboxes)
        with nats_errors("preparing the mailboxes"):
            await self._prepare_all()

    async def post(self, mailbox: str, event: CloudEvent) -> None:
        """Put an event into a mailbox; durable on return. The same event within the window is kept once."""
        headers, payload = encode_nats_structured(event)
        headers["Nats-Msg-Id"] = f"{mailbox}/{deduplication_id(event)}"
        require_room(self._client, event, headers, payload)
        with nats_errors(f"posting to mailbox {mailbox}"):
            try:
                await self._publish(mailbox, payload, headers)
            except NoStreamResponseError:
                await self.prepare([mailbox])
                await self._publish(mailbox, payload, headers)

    async def consume(self, mailbox: str, handler: EventHandler, *, concurrency: int = 16) -> None:
        """Deliver a mailbox to the handler until cancelled; an event leaves the mailbox when the handler returns.

        Retries and dead letters are as with ``EventLog.consume``.
        """
        self._known.add(mailbox)
        what = Consumption(
            stream=self._subjects.stream,
            name=mailbox,
            durable=token(mailbox),
            filter_subjects=(self._subject(mailbox),),
            concurrency=concurrency,
        )
        await DurableConsumer(self._client, what, self._policy, self._prepare_all, self._letters.keep).consume(handler)

    async def dead_letters(self, mailbox: str | None = None) -> AsyncIterator[DeadLetter]:
        """What the owners of mailboxes gave up on, oldest first."""
        async for letter in self._letters.list(mailbox):
            yield letter

    async def redrive(self, mailbox: str | None = None, sequences: Sequence[int] | None = None) -> int:
        """Put dead letters back into their mailbox; returns how many."""
        return await self._letters.redrive(mailbox, sequences)

    def _subject(self, mailbox: str) -> str:
        return self._subjects.hub if mailbox == HUB else self._subjects.edge(mailbox)

    async def _publish(self, mailbox: str, payload: bytes, headers: dict[str, str]) -> None:
        await self._js.publish(self._subject(mailbox), payload, headers=headers)

    async def _prepare_all(self) -> None:
        policy, subjects = self._policy, self._subjects
        mailboxes = stream_config(
            subjects.stream,
            sorted(map(self._subject, self._known)),
            retention=RetentionPolicy.WORK_QUEUE,
            max_age=policy.retention,
            max_bytes=policy.max_bytes,
            duplicate_window=policy.duplicate_window,
            replicas=policy.replicas,
        )
        dead_letters = stream_config(
            subjects.dead_letter_stream,
            [subjects.all_dead_letters],
            max_age=policy.dead_letter_retention,
            duplicate_window=policy.duplicate_window,
            replicas=policy.replicas,
        )
        await ensure_stream(self._js, mailboxes)
        await ensure_stream(self._js, dead_letters)

"""Relayed stores that were given up on: kept with the reason, listed, and put back."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api
from nats.js.errors import NotFoundError

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.domain.errors import NotFound
from imaging_services.domain.relay.subjects import RelaySubjects

_REASON = "Imaging-Reason"
_ERROR = "Imaging-Error"
_TRIES = "Imaging-Tries"
_FAILED_AT = "Imaging-Failed-At"
_ADDED = (_REASON, _ERROR, _TRIES, _FAILED_AT)


@dataclass(frozen=True, slots=True)
class RelayDeadLetter:
    """A store that was given up on. ``sequence`` identifies it for a redrive; ``size`` is the data set's, bytes."""

    sequence: int
    channel: str
    reason: str
    error: str
    tries: int
    failed_at: datetime
    sop_class_uid: str
    sop_instance_uid: str
    calling_ae_title: str
    size: int
    object_name: str | None


async def bury(js: JetStreamContext, subjects: RelaySubjects, message: Msg, error: Exception, tries: int) -> None:
    """Keep a message among the dead letters, after ``tries``. Its publish may be repeated; it is kept once.

    Raises a RetryableError when it could not be kept; the message must then stay where it is.
    """
    headers = _own(message.headers or {})
    metadata = message.metadata
    headers |= {
        _REASON: str(error) or type(error).__name__,
        _ERROR: type(error).__name__,
        _TRIES: str(tries),
        _FAILED_AT: datetime.now(UTC).isoformat(),
        api.Header.MSG_ID: f"{metadata.stream}.{metadata.sequence.stream}.{metadata.timestamp.timestamp()}",
    }
    subject = subjects.dead_letters(headers.get("Imaging-Object"))
    with nats_errors("keeping a dead letter"):
        await js.publish(subject, message.data, headers=headers, stream=subjects.dead_letter_stream)


async def list_relay_dead_letters(
    client: Client, root: str, channel: str, *, domain: str | None = None
) -> AsyncIterator[RelayDeadLetter]:
    """Dead letters of the end that listens on ``channel``, oldest first. Raises a RetryableError."""
    subjects = RelaySubjects(root, channel)
    js = client.jetstream(domain=domain)
    async for raw in _letters(js, subjects, 1):
        yield _letter(raw, channel)


async def redrive_relay(
    client: Client, root: str, channel: str, sequences: Sequence[int] | None = None, *, domain: str | None = None
) -> int:
    """Put dead letters (all, or those of ``sequences``) back into the work queue; returns how many.

    Raises ``NotFound`` for a sequence that is no dead letter, ``OutOfResources`` when the queue is full.
    """
    subjects = RelaySubjects(root, channel)
    js = client.jetstream(domain=domain)
    count = 0
    if sequences is None:
        last = await _last(js, subjects)
        async for raw in _letters(js, subjects, 1):
            if raw.seq is None or raw.seq > last:
                break  # failed again meanwhile
            await _put_back(js, subjects, raw)
            count += 1
        return count
    for sequence in sequences:
        await _put_back(js, subjects, await _get(js, subjects, sequence))
        count += 1
    return count


async def _put_back(js: JetStreamContext, subjects: RelaySubjects, raw: api.RawStreamMsg) -> None:
    headers = raw.headers or {}
    again = {name: value for name, value in _own(headers).items() if name not in _ADDED}
    # A new id: the first one may still be in the de-duplication window, and would be swallowed.
    again[api.Header.MSG_ID] = f"redrive.{raw.seq}.{headers.get(_FAILED_AT, '')}"
    with nats_errors("putting a dead letter back"):
        await js.publish(
            subjects.store(headers.get("Imaging-Object")), raw.data or b"", headers=again, stream=subjects.stream
        )
        assert raw.seq is not None
        await js.delete_msg(subjects.dead_letter_stream, raw.seq)


async def _letters(js: JetStreamContext, subjects: RelaySubjects, start: int) -> AsyncIterator[api.RawStreamMsg]:
    while True:
        with nats_errors("reading dead letters"):
            try:
                raw = await js.get_msg(subjects.dead_letter_stream, seq=start, subject=">", next=True)
            except NotFoundError:
                return
        yield raw
        assert raw.seq is not None
        start = raw.seq + 1


async def _get(js: JetStreamContext, subjects: RelaySubjects, sequence: int) -> api.RawStreamMsg:
    with nats_errors("reading a dead letter"):
        try:
            return await js.get_msg(subjects.dead_letter_stream, seq=sequence)
        except NotFoundError as error:
            raise NotFound(f"{subjects.dead_letter_stream} has no dead letter {sequence}") from error


async def _last(js: JetStreamContext, subjects: RelaySubjects) -> int:
    with nats_errors("reading dead letters"):
        try:
            return (await js.stream_info(subjects.dead_letter_stream)).state.last_seq
        except NotFoundError:
            return 0


def _own(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if not name.startswith("Nats-")}


def _letter(raw: api.RawStreamMsg, channel: str) -> RelayDeadLetter:
    headers = raw.headers or {}
    failed_at = headers.get(_FAILED_AT)
    return RelayDeadLetter(
        sequence=raw.seq or 0,
        channel=channel,
        reason=headers.get(_REASON, ""),
        error=headers.get(_ERROR, ""),
        tries=int(headers.get(_TRIES, "0")),
        failed_at=datetime.fromisoformat(failed_at) if failed_at else datetime.fromtimestamp(0, UTC),
        sop_class_uid=headers.get("Imaging-SOP-Class", ""),
        sop_instance_uid=headers.get("Imaging-SOP-Instance", ""),
        calling_ae_title=headers.get("Imaging-Calling-AE", ""),
        size=int(headers.get("Imaging-Size", "0")),
        object_name=headers.get("Imaging-Object"),
    )

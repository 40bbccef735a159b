"""Relayed stores that were given up on: kept with the reason, listed, and put back."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api
from nats.js.errors import NotFoundError

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.adapters.nats.relay_objects import new_name
from imaging_services.adapters.nats.relay_places import RelayPlace
from imaging_services.adapters.nats.relay_urgent import is_emptied
from imaging_services.domain.errors import NotFound, Superseded
from imaging_services.domain.relay.messages import (
    H_ACCEPTED,
    H_ASSOCIATION,
    H_CALLING,
    H_ERROR,
    H_OBJECT,
    H_PRIORITY,
    H_SIZE,
    H_SOP_CLASS,
    H_SOP_INSTANCE,
    URGENT,
)
from imaging_services.domain.relay.subjects import RelaySubjects

_REASON = "Imaging-Reason"
_TRIES = "Imaging-Tries"
_FAILED_AT = "Imaging-Failed-At"
_FROM = "Imaging-From-Domain"
_ADDED = (_REASON, H_ERROR, _TRIES, _FAILED_AT, _FROM)


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


@dataclass(frozen=True, slots=True)
class Redriven:
    """How many dead letters were put back, and how many were left out because a later version is there."""

    put_back: int
    superseded: int = 0


async def bury(place: RelayPlace, home: RelayPlace, message: Msg, error: Exception, tries: int) -> None:
    """Keep a message of ``place`` among the dead letters of ``home``, after ``tries``, with its data set. Its publish
    may be repeated; it is kept once.

    Raises a RetryableError when it could not be kept; the message must then stay where it is.
    """
    headers, subjects = _own(message.headers or {}), home.subjects
    metadata = message.metadata
    headers |= {
        _REASON: str(error) or type(error).__name__,
        H_ERROR: type(error).__name__,
        # It stays as old as it is when it is put back.
        H_ACCEPTED: headers.get(H_ACCEPTED) or metadata.timestamp.isoformat(),
        _TRIES: str(tries),
        _FAILED_AT: datetime.now(UTC).isoformat(),
        api.Header.MSG_ID: f"{metadata.stream}.{metadata.sequence.stream}.{metadata.timestamp.timestamp()}",
    }
    if place is not home:
        headers[_FROM] = place.domain or ""
        headers[api.Header.MSG_ID] += f".{place.domain}"
        if name := headers.get(H_OBJECT):
            headers |= await _moved(place, home, name, headers[_REASON])
    subject = subjects.dead_letters(headers.get(H_OBJECT))
    with nats_errors("keeping a dead letter"):
        await home.js.publish(subject, message.data, headers=headers, stream=subjects.dead_letter_stream)


async def _moved(place: RelayPlace, home: RelayPlace, name: str, reason: str) -> dict[str, str]:
    """Headers of a letter whose object has been copied to ``home``, or is nowhere any more."""
    # Under a new name, which says its age: the janitor has to leave it alone until it is named.
    copy = new_name()
    try:
        await home.bucket.put(copy, place.bucket.read(name))
    except NotFound:
        return {_REASON: f"{reason}; its data set is gone: domain {place.domain} has no object {name}"}
    return {H_OBJECT: copy}


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
) -> Redriven:
    """Put dead letters (all, or those of ``sequences``) back into the work queue.

    Each stays as old as it was, so that it replaces no version that came later. One that was given up on for that
    reason is left out, unless ``sequences`` names it: then it counts as sent now. Raises ``NotFound`` for a sequence
    that is no dead letter, ``OutOfResources`` when the queue is full.
    """
    subjects = RelaySubjects(root, channel)
    js = client.jetstream(domain=domain)
    if sequences is not None:
        for sequence in sequences:
            await _put_back(js, subjects, await _get(js, subjects, sequence))
        return Redriven(len(sequences))
    put_back = superseded = 0
    last = await _last(js, subjects)
    async for raw in _letters(js, subjects, 1):
        if raw.seq is None or raw.seq > last:
            break  # failed again meanwhile
        if _is_superseded(raw):
            superseded += 1
        else:
            await _put_back(js, subjects, raw)
            put_back += 1
    return Redriven(put_back, superseded)


def _is_superseded(raw: api.RawStreamMsg) -> bool:
    return (raw.headers or {}).get(H_ERROR) == Superseded.__name__


async def _put_back(js: JetStreamContext, subjects: RelaySubjects, raw: api.RawStreamMsg) -> None:
    headers = raw.headers or {}
    again = {name: value for name, value in _own(headers).items() if name not in _ADDED}
    if _is_superseded(raw):
        again.pop(H_ACCEPTED, None)
    # A new id: the first one may still be in the de-duplication window, and would be swallowed.
    again[api.Header.MSG_ID] = f"redrive.{raw.seq}.{headers.get(_FAILED_AT, '')}"
    with nats_errors("putting a dead letter back"):
        association, name = headers.get(H_ASSOCIATION, "none"), headers.get(H_OBJECT)
        if headers.get(H_PRIORITY) == URGENT and await is_emptied(js, subjects):
            subject, stream = subjects.urgent(association, name), subjects.urgent_stream
        else:
            subject, stream = subjects.store(association, name), subjects.stream
        await js.publish(subject, raw.data or b"", headers=again, stream=stream)
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
        error=headers.get(H_ERROR, ""),
        tries=int(headers.get(_TRIES, "0")),
        failed_at=datetime.fromisoformat(failed_at) if failed_at else datetime.fromtimestamp(0, UTC),
        sop_class_uid=headers.get(H_SOP_CLASS, ""),
        sop_instance_uid=headers.get(H_SOP_INSTANCE, ""),
        calling_ae_title=unquote(headers.get(H_CALLING, "")),
        size=int(headers.get(H_SIZE, "0")),
        object_name=headers.get(H_OBJECT),
    )

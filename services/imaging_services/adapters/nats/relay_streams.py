"""The streams and the bucket of a relay: created when absent, extended when too narrow, never narrowed."""

import asyncio
from dataclasses import replace

import structlog
from nats.js import JetStreamContext, api
from nats.js.errors import APIError, BadRequestError, NotFoundError

from imaging_services.adapters.nats.connection import nats_errors
from imaging_services.domain.relay.subjects import RelaySubjects

log = structlog.get_logger(__name__)

_DUPLICATE_WINDOW = 120.0  # seconds; longer than any publish is repeated
_DOMAINS_KEPT = 30 * 86400.0  # seconds; a domain that is silent for longer is gone


async def ensure_relay(js: JetStreamContext, subjects: RelaySubjects, max_bytes: int, replicas: int) -> None:
    """Make the work queue, its dead letters, the bucket and the queue of urgent stores exist. ``max_bytes`` 0 sets no
    limit.

    Raises a RetryableError when JetStream does not answer. The last one may be refused, by an account that allows no
    further stream: everything else works without it.
    """
    limit = max_bytes or -1
    with nats_errors("creating the relay's streams"):
        await ensure_stream(js, _work_queue(subjects, limit, replicas))
        await ensure_stream(js, _dead_letters(subjects, replicas))
        await ensure_stream(js, _bucket(subjects, limit, replicas))
        try:
            await ensure_stream(js, _urgent(subjects, replicas))
        except APIError as error:
            log.debug("no queue for urgent stores", stream=subjects.urgent_stream, error=error.description)


async def ensure_stream(js: JetStreamContext, wanted: api.StreamConfig) -> None:
    """Create a stream, or add what it lacks: subjects, room, length of the de-duplication window, replicas."""
    assert wanted.name is not None
    try:
        present = (await js.stream_info(wanted.name)).config
    except NotFoundError:
        try:
            await js.add_stream(wanted)
        except BadRequestError:
            # Another process was first, perhaps with other settings: extend what it made.
            await asyncio.sleep(0.1)
            present = (await js.stream_info(wanted.name)).config
        else:
            log.info("stream created", stream=wanted.name)
            return
    extended = _extended(present, wanted)
    if extended != present:
        await js.update_stream(extended)
        log.info("stream extended", stream=wanted.name)


def _extended(present: api.StreamConfig, wanted: api.StreamConfig) -> api.StreamConfig:
    subjects = list(dict.fromkeys([*(present.subjects or []), *(wanted.subjects or [])]))
    return replace(
        present,
        subjects=subjects,
        max_bytes=_wider(present.max_bytes, wanted.max_bytes),
        duplicate_window=max(present.duplicate_window or 0, wanted.duplicate_window or 0),
        num_replicas=max(present.num_replicas or 1, wanted.num_replicas or 1),
    )


def _wider(one: int | None, other: int | None) -> int:
    # -1 is no limit
    return -1 if min(one or -1, other or -1) < 0 else max(one or 0, other or 0)


def _work_queue(subjects: RelaySubjects, max_bytes: int, replicas: int) -> api.StreamConfig:
    return api.StreamConfig(
        name=subjects.stream,
        description="C-STOREs on their way, and ends of associations; each leaves when it is safe at the other end",
        subjects=subjects.queued,
        retention=api.RetentionPolicy.WORK_QUEUE,
        storage=api.StorageType.FILE,
        # A full stream refuses the newest: dropping the oldest would lose what was acknowledged.
        discard=api.DiscardPolicy.NEW,
        max_bytes=max_bytes,
        duplicate_window=_DUPLICATE_WINDOW,
        num_replicas=replicas,
    )


def _urgent(subjects: RelaySubjects, replicas: int) -> api.StreamConfig:
    # Without a limit of its own: an urgent store finds room when the others have filled theirs. The server has one.
    return replace(
        _work_queue(subjects, -1, replicas),
        name=subjects.urgent_stream,
        description="C-STOREs on their way that wait behind no others",
        subjects=subjects.queued_urgent,
    )


def _dead_letters(subjects: RelaySubjects, replicas: int) -> api.StreamConfig:
    return api.StreamConfig(
        name=subjects.dead_letter_stream,
        description="C-STOREs that were given up on, with the reason",
        subjects=[subjects.dead_letters(), subjects.dead_letters("*")],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,
        max_bytes=-1,
        duplicate_window=_DUPLICATE_WINDOW,
        num_replicas=replicas,
    )


def domains(subjects: RelaySubjects) -> api.StreamConfig:
    """The JetStream domains that have been heard of lately, as a stream."""
    return api.StreamConfig(
        name=subjects.domains_stream,
        description="JetStream domains that keep stores for this end",
        subjects=[subjects.domain("*")],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        max_msgs_per_subject=1,
        max_age=_DOMAINS_KEPT,
    )


def _bucket(subjects: RelaySubjects, max_bytes: int, replicas: int) -> api.StreamConfig:
    # The layout of JetStream object stores (ADR-20), so that `nats object` can look into it.
    return api.StreamConfig(
        name=f"OBJ_{subjects.bucket}",
        description="data sets too large for a message",
        subjects=[f"$O.{subjects.bucket}.C.>", f"$O.{subjects.bucket}.M.>"],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,
        max_bytes=max_bytes,
        allow_rollup_hdrs=True,
        allow_direct=True,
        num_replicas=replicas,
    )

"""Creating JetStream streams, and widening those that exist: never fewer subjects, days or bytes than before."""

import dataclasses
from collections.abc import Iterable
from datetime import timedelta

import structlog
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StoreCompression, StreamConfig
from nats.js.errors import BadRequestError, NotFoundError

log = structlog.get_logger(__name__)

# "stream name already in use with a different configuration": somebody else created it meanwhile.
_NAME_IN_USE = 10058


def stream_config(
    name: str,
    subjects: list[str],
    *,
    retention: RetentionPolicy = RetentionPolicy.LIMITS,
    max_age: timedelta = timedelta(0),
    max_bytes: int = 0,
    duplicate_window: timedelta = timedelta(minutes=2),
    replicas: int = 1,
    compressed: bool = False,
) -> StreamConfig:
    """A stream on disk, ``compressed`` there or not; ``max_age`` and ``max_bytes`` 0 mean no limit."""
    window = min(duplicate_window, max_age) if max_age else duplicate_window
    return StreamConfig(
        name=name,
        subjects=subjects,
        retention=retention,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_age=max_age.total_seconds(),
        max_bytes=max_bytes or -1,
        duplicate_window=window.total_seconds(),
        num_replicas=replicas,
        allow_direct=True,
        compression=StoreCompression.S2 if compressed else None,
    )


async def ensure_stream(js: JetStreamContext, wanted: StreamConfig) -> None:
    """Create the stream, or widen the one that is there until it holds what is wanted."""
    try:
        info = await js.stream_info(str(wanted.name))
    except NotFoundError:
        try:
            await js.add_stream(wanted)
        except BadRequestError as error:
            if error.err_code != _NAME_IN_USE:
                raise
            info = await js.stream_info(str(wanted.name))
        else:
            log.info("stream created", stream=wanted.name, subjects=wanted.subjects)
            return
    widened = widen(info.config, wanted)
    if widened != info.config:
        await js.update_stream(widened)
        log.info("stream widened", stream=wanted.name, subjects=widened.subjects)


def widen(present: StreamConfig, wanted: StreamConfig) -> StreamConfig:
    """``present`` with the subjects of both and the wider of each limit, compressed from now on when either is."""
    subjects = list(present.subjects or [])
    subjects += [subject for subject in wanted.subjects or [] if not covered(subject, subjects)]
    return dataclasses.replace(
        present,
        subjects=subjects,
        max_age=_wider(present.max_age, wanted.max_age),
        max_bytes=int(_wider(present.max_bytes, wanted.max_bytes) or -1),
        duplicate_window=max(present.duplicate_window, wanted.duplicate_window),
        num_replicas=max(present.num_replicas or 1, wanted.num_replicas or 1),
        allow_direct=True,
        compression=wanted.compression or present.compression,
    )


def covered(subject: str, patterns: Iterable[str]) -> bool:
    """True when one of the patterns takes every message of the subject (``*`` one token, ``>`` the rest)."""
    return any(_covers(pattern.split("."), subject.split(".")) for pattern in patterns)


def _covers(pattern: list[str], subject: list[str]) -> bool:
    for position, part in enumerate(pattern):
        if part == ">":
            return len(subject) > position
        if position >= len(subject) or part not in ("*", subject[position]):
            return False
    return len(pattern) == len(subject)


def _wider(present: float | None, wanted: float | None) -> float:
    """The larger limit; 0, -1 and None mean none at all, which is wider than any."""
    limits = [limit if limit and limit > 0 else float("inf") for limit in (present, wanted)]
    return 0 if max(limits) == float("inf") else max(limits)

"""Events that wait for the event log: written with what they tell of, published in order afterwards."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import structlog
from isal import isal_zlib
from psycopg import AsyncPipeline
from psycopg.types.json import Jsonb

from imaging_services.adapters.postgres.pool import Connection, Pool, database_errors
from imaging_services.adapters.postgres.sql import statement
from imaging_services.domain.errors import PermanentError
from imaging_services.domain.events.envelope import CloudEvent

log = structlog.get_logger(__name__)

Publish = Callable[[Sequence[CloudEvent]], Awaitable[None]]

_LOCK = 0x494D4147_4F555442  # "IMAGOUTB"
_WAIT_FOR_TURN = "5s"
_MAX_BYTES = 4 * 1024 * 1024  # compressed; documents shrink to an eighth
_SLICES = 15  # publications that one turn may take; each takes out four megabytes, and most turns are one
_LEVEL = 1  # of ISA-L, whose output is zlib's format: a sixth of the size in a third of zlib's own time

# id, type, source, event_id, compressed, data, time, extensions
_Row = tuple[int, str, str, str, bool, bytes, Any, dict[str, str]]


def packed(event: CloudEvent) -> bytes:
    """The event's document as it waits, in the zlib format (RFC 1950)."""
    return isal_zlib.compress(event.data, _LEVEL)


async def queue(connection: Connection, event: CloudEvent) -> None:
    """Write an event within the transaction that is open."""
    row = {
        "event_id": event.id,
        "type": event.type,
        "source": event.source,
        "time": event.time,
        "extensions": Jsonb(event.extensions),
        "data": packed(event),
    }
    await connection.execute(statement("queue_event"), row)


async def publish_pending(pool: Pool, publish: Publish, limit: int, longest: timedelta) -> int:
    """Publish the oldest events, at most ``limit``; returns how many left the queue. Fewer: no more were waiting.

    Processors take turns; one waits at most 5 s, then ``DeadlineExceeded`` is raised. One that dies while publishing
    leaves its events to the next, as does, after ``longest``, one whose connection has died without either end being
    told: ``longest`` is the time that ``publish`` may take. They are published again with the same ids.
    """
    done = 0
    turn = {"lock": _LOCK, "patience": _WAIT_FOR_TURN, "idle": _setting(longest), "whole": _setting(_SLICES * longest)}
    with database_errors("publishing events"):
        # In a pipeline: what a statement does not have to wait for costs no round trip.
        async with pool.connection() as connection, connection.pipeline() as pipeline, connection.transaction():
            await connection.execute(statement("publishers_turn"), turn)
            rows = await _pending(connection, pipeline, limit)
            while rows:
                await _publish(connection, rows, publish)
                done += len(rows)
                if done == limit or sum(len(row[5]) for row in rows) < _MAX_BYTES:
                    break
                rows = await _pending(connection, pipeline, limit - done)
    return done


def _setting(duration: timedelta) -> str:
    return f"{duration / timedelta(milliseconds=1):.0f}ms"


async def _pending(connection: Connection, pipeline: AsyncPipeline, limit: int) -> list[_Row]:
    cursor = connection.cursor(binary=True)
    await cursor.execute(statement("pending_events"), {"limit": limit, "bytes": _MAX_BYTES})
    # Within a pipeline that is not synchronized the server takes the session for active, however long nothing comes,
    # and its limit for idle transactions does not hold.
    await pipeline.sync()
    return [(*row,) for row in await cursor.fetchall()]


async def _publish(connection: Connection, rows: list[_Row], publish: Publish) -> None:
    try:
        await publish([_event(row) for row in rows])
    except PermanentError:
        published = await _publish_singly(connection, rows, publish)
    else:
        published = [row[0] for row in rows]
    await connection.execute(statement("forget_published"), {"ids": published})


async def _publish_singly(connection: Connection, rows: list[_Row], publish: Publish) -> list[int]:
    """One of the events is refused for good: find it, set it aside, and let the others go on."""
    published = []
    for row in rows:
        try:
            await publish([_event(row)])
        except PermanentError as error:
            log.error("event refused by the event log, set aside", event_id=row[3], type=row[1], reason=str(error))
            await connection.execute(statement("set_aside"), {"id": row[0], "reason": str(error)})
        else:
            published.append(row[0])
    return published


def _event(row: _Row) -> CloudEvent:
    _, event_type, source, event_id, compressed, data, time, extensions = row
    document = isal_zlib.decompress(data) if compressed else bytes(data)
    return CloudEvent(event_type, source, event_id, document, time, extensions)

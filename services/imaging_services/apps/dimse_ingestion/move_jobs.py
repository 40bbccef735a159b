"""Asynchronous C-MOVE: the request is kept and answered at once, the instances are sent afterwards."""

import base64
import binascii
import json
from datetime import UTC, datetime, timedelta
from typing import Protocol
from uuid import uuid4

import structlog

from imaging_services.apps.dimse_ingestion.asked import Asked
from imaging_services.apps.dimse_ingestion.lanes import Lanes
from imaging_services.apps.dimse_ingestion.sub_operations import Counts
from imaging_services.domain.dicom.command_set import MOVE_DESTINATION
from imaging_services.domain.errors import BackendUnavailable, ImagingError, InvalidInput, PermanentError
from imaging_services.domain.jobs import RETRY_DELAYS, Job, Jobs, NotYet
from imaging_services.domain.relay.messages import Call, Origin

log = structlog.get_logger(__name__)

MOVES_AT_WORK = 8
"""Moves to all destinations at a time."""
_AT_A_TIME = 2  # to one destination
_LAST_TRY = timedelta(seconds=2 * RETRY_DELAYS[-1])


class Mover(Protocol):
    """Does what a C-MOVE asks for."""

    async def run(self, asked: Asked, only: frozenset[str] | None) -> Counts:
        """Send the instances asked for, or those of them that ``only`` names. Raises when nothing could be tried."""
        ...


class MoveJobs:
    """Keeps moves and does them. What a destination does not take for now is tried again for as long as ``patience``;
    within one process only what has not arrived, after a restart all of it."""

    def __init__(self, jobs: Jobs, patience: timedelta) -> None:
        self._jobs, self._patience = jobs, patience
        self._lanes = Lanes(_AT_A_TIME)
        self._left: dict[str, tuple[datetime, frozenset[str]]] = {}

    async def take_on(self, asked: Asked) -> None:
        """Return when the move is kept. Raises a RetryableError when it could not be."""
        job_id = uuid4().hex
        await self._jobs.put(job_id, _encode(job_id, asked))
        log.info("move taken on", calling=asked.calling_ae_title, job=job_id)

    async def work(self, mover: Mover) -> None:
        """Send, until cancelled."""

        async def do(job: Job) -> None:
            await self._do(job, mover)

        await self._jobs.work(do)

    async def _do(self, job: Job, mover: Mover) -> None:
        job_id, asked = _decode(job.body)
        late = datetime.now(UTC) - job.accepted_at > self._patience
        self._forget()
        _, left = self._left.get(job_id, (None, None))
        try:
            with self._lanes.of(asked.command.text(MOVE_DESTINATION)) as lane, lane.trying():
                await self._move(job, job_id, asked, left, mover)
        except NotYet:
            raise
        except Exception as error:  # one that was not foreseen comes again, too, and not for ever
            if late:
                raise PermanentError(f"move {job_id} given up: {error}") from error
            if isinstance(error, ImagingError):  # also an AE that is not known any more: it may be written in again
                raise BackendUnavailable(str(error)) from error
            raise

    async def _move(self, job: Job, job_id: str, asked: Asked, left: frozenset[str] | None, mover: Mover) -> None:
        counts = await mover.run(asked, left)
        if counts.again:
            self._left[job_id] = job.accepted_at, frozenset(counts.again)
            raise BackendUnavailable(f"{len(counts.again)} instances not sent: {counts.reason}")
        self._left.pop(job_id, None)
        log.info("move done", job=job_id, failed=len(counts.failed), why=counts.reason or None)

    def _forget(self) -> None:
        """Of moves that were given up, or that another process has done."""
        before = datetime.now(UTC) - self._patience - _LAST_TRY
        self._left = {job_id: kept for job_id, kept in self._left.items() if kept[0] > before}


def _encode(job_id: str, asked: Asked) -> bytes:
    origin = Origin(job_id, asked.calling_ae_title, "")
    call = Call(origin, asked.abstract_syntax, asked.transfer_syntax, asked.command, asked.extended)
    document = {"call": call.headers(), "identifier": base64.b64encode(asked.data or b"").decode()}
    return json.dumps(document).encode()


def _decode(body: bytes) -> tuple[str, Asked]:
    try:
        document = json.loads(body)
        call, data = Call.from_headers(document["call"]), base64.b64decode(document["identifier"], validate=True)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise InvalidInput(f"job of a C-MOVE is broken: {error!r}") from error
    origin = call.origin
    return origin.association_id, Asked(
        origin.calling_ae_title,
        call.abstract_syntax,
        call.transfer_syntax,
        call.command,
        data,
        extended=call.extended,
    )

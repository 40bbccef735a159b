"""Storage Commitment Push Model as SCP (PS3.4 annex J.3): N-ACTION at once, N-EVENT-REPORT when it is known."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import structlog

from imaging_services.apps.dimse_ingestion.asked import Asked
from imaging_services.apps.dimse_ingestion.lanes import Lanes
from imaging_services.apps.dimse_ingestion.reports import Reporter
from imaging_services.apps.dimse_ingestion.transactions import (
    REQUEST_COMMITMENT,
    WELL_KNOWN_INSTANCE,
    Transaction,
    Verdict,
    read_request,
)
from imaging_services.apps.dimse_ingestion.verification import Present, Verifier
from imaging_services.domain.dicom.command_set import ACTION_TYPE_ID
from imaging_services.domain.dicom.dimse import DimseResponse, Status
from imaging_services.domain.dicom.transfer_syntaxes import encoding_of
from imaging_services.domain.errors import (
    BackendUnavailable,
    Conflict,
    ImagingError,
    InvalidInput,
    PermanentError,
    RetryableError,
)
from imaging_services.domain.jobs import Job, Jobs, NotYet

log = structlog.get_logger(__name__)

AT_WORK = 32
"""Transactions of all requestors at a time."""
_AT_A_TIME = 4  # of one requestor
_OWNER_SECONDS = 1.0
_ON_ITS_WAY = timedelta(minutes=5)  # a relay's durable mode answers a C-STORE before the instance is here


class Commitment:
    """Takes transactions on and reports on them; ``patience`` is how long a requestor is tried to be reached. A young
    transaction is left to the process that has its association."""

    def __init__(self, jobs: Jobs, verifier: Verifier, reporter: Reporter, patience: timedelta) -> None:
        self._jobs, self._verifier, self._reporter, self._patience = jobs, verifier, reporter, patience
        self._lanes = Lanes(_AT_A_TIME)
        self._process = uuid4().hex

    async def action(self, asked: Asked) -> AsyncIterator[DimseResponse]:
        """N-ACTION: success once the transaction is kept. Raises ``InvalidInput`` for one that cannot be read."""
        status, why = await self._taken_on(asked)
        response = asked.command.response(status, error_comment=why)
        response.elements[ACTION_TYPE_ID] = asked.command.number(ACTION_TYPE_ID, 0)
        yield DimseResponse(response)

    def closed(self, association_id: str) -> None:
        """An association of this process has ended."""
        self._reporter.closed(association_id)

    async def work(self) -> None:
        """Verify and report, until cancelled."""
        await self._jobs.work(self._do)

    async def _taken_on(self, asked: Asked) -> tuple[Status, str]:
        """Statuses of PS3.7 section 10.1.4.1.10."""
        if asked.command.number(ACTION_TYPE_ID, 0) != REQUEST_COMMITMENT:
            return Status.NO_SUCH_ACTION, "the only action type is 1"
        if asked.command.sop_instance_uid != WELL_KNOWN_INSTANCE:
            return Status.NO_SUCH_INSTANCE, "not the well-known SOP instance of storage commitment"
        if asked.data is None:
            return Status.INVALID_ARGUMENT, "no Action Information"
        try:
            uid, references = await asyncio.to_thread(read_request, asked.data, encoding_of(asked.transfer_syntax))
            association = asked.association
            transaction = Transaction(
                uid,
                asked.calling_ae_title,
                association.association_id if association else asked.association_id,
                self._process if association else "",
                references,
                asked.transfer_syntax,
            )
            if association is not None:
                self._reporter.expect(association)
            await self._jobs.put(uid, await asyncio.to_thread(transaction.encode))
        except InvalidInput as error:
            return Status.INVALID_ARGUMENT, str(error)
        except Conflict:
            return Status.DUPLICATE_TRANSACTION_UID, f"transaction {uid} is under way"
        except RetryableError as error:
            log.warning("storage commitment not taken on", why=str(error))
            return Status.RESOURCE_LIMITATION, str(error)
        log.info(
            "storage commitment",
            calling=asked.calling_ae_title,
            transaction=uid,
            references=len(transaction.references),
        )
        return Status.SUCCESS, ""

    async def _do(self, job: Job) -> None:
        transaction = Transaction.decode(job.body)
        age = datetime.now(UTC) - job.accepted_at
        if (
            transaction.owner not in ("", self._process)
            and age.total_seconds() < self._reporter.same_association_seconds + _OWNER_SECONDS
        ):
            raise BackendUnavailable("left to the process that has the association")
        try:
            with self._lanes.of(transaction.calling_ae_title) as lane:
                verdict = await self._verdict(transaction, job.accepted_at)
                with lane.trying():
                    await self._reporter.report(transaction, verdict)
        except NotYet:
            raise
        except Exception as error:  # one that was not foreseen comes again, too, and not for ever
            if age > self._patience:
                raise PermanentError(f"{transaction.calling_ae_title} could not be told in time: {error}") from error
            if isinstance(error, ImagingError):  # also a refusal: somebody may still mend what it is due to
                raise BackendUnavailable(str(error)) from error
            raise
        log.info(
            "storage commitment reported",
            calling=transaction.calling_ae_title,
            transaction=transaction.uid,
            safe=len(verdict.safe),
            failed=len(verdict.failed),
        )

    async def _verdict(self, transaction: Transaction, accepted_at: datetime) -> Verdict:
        """Raises ``NotYet`` while instances that are not here may still be on their way."""
        present = await self._verifier.present(transaction.references)
        missing = sum(one.sop_instance_uid not in present for one in transaction.references)
        if missing and not transaction.owner and await self._on_their_way(present, accepted_at):
            raise NotYet(f"{missing} instances of {transaction.uid} are not here yet")
        return await self._verifier.verify(transaction.references, present)

    async def _on_their_way(self, present: Present, accepted_at: datetime) -> bool:
        """The rest of a study may follow when something of it has arrived lately."""
        now = datetime.now(UTC)
        if now - accepted_at > self._patience:
            return False
        if now - accepted_at < _ON_ITS_WAY:
            return True
        arrived = await self._verifier.last_arrival(present)
        return arrived is not None and now - arrived < _ON_ITS_WAY

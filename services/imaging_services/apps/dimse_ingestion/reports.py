"""N-EVENT-REPORT to whoever asked for storage commitment (PS3.4 annex J.3.3): over its association while it is open, or
over a new one to its known AE."""

import asyncio
import contextlib
from contextlib import aclosing
from dataclasses import dataclass, field
from uuid import uuid4

import structlog

from imaging_services.adapters.dimse.contexts import propose
from imaging_services.adapters.dimse.scu import association as associated
from imaging_services.apps.dimse_ingestion.known_aes import KnownAe, KnownAes
from imaging_services.apps.dimse_ingestion.transactions import (
    STORAGE_COMMITMENT,
    WELL_KNOWN_INSTANCE,
    Transaction,
    Verdict,
    write_report,
)
from imaging_services.apps.dimse_ingestion.ways import Ways
from imaging_services.domain.dicom.command_set import (
    AFFECTED_SOP_CLASS_UID,
    AFFECTED_SOP_INSTANCE_UID,
    COMMAND_DATA_SET_TYPE,
    COMMAND_FIELD,
    EVENT_TYPE_ID,
    MESSAGE_ID,
    CommandField,
    CommandSet,
)
from imaging_services.domain.dicom.dimse import AcceptedContext, Association, Role, Status
from imaging_services.domain.dicom.transfer_syntaxes import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    encoding_of,
)
from imaging_services.domain.errors import (
    BackendUnavailable,
    NotFound,
    RetryableError,
    UnsupportedSopClass,
)
from imaging_services.domain.relay.messages import Call, Origin

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Open:
    association: Association
    closed: asyncio.Event = field(default_factory=asyncio.Event)


class Reporter:
    """Sends reports. ``same_association_seconds`` is how long a requestor is given to release its association, as one
    does that expects the report over another, before the report goes over it."""

    def __init__(self, known: KnownAes, ways: Ways, ae_title: str, same_association_seconds: float) -> None:
        self._known, self._ways, self._ae_title = known, ways, ae_title
        self.same_association_seconds = same_association_seconds
        self._open: dict[str, _Open] = {}

    def expect(self, association: Association) -> None:
        """A report may be due over this association, until it has closed."""
        self._open.setdefault(association.association_id, _Open(association))

    def closed(self, association_id: str) -> None:
        """An association has ended."""
        ended = self._open.pop(association_id, None)
        if ended is not None:
            ended.closed.set()

    async def report(self, transaction: Transaction, verdict: Verdict) -> None:
        """Return when the requestor has taken the report. Raises a RetryableError when it cannot be reached now."""
        relayed = transaction.association_id and not transaction.owner
        over_the_same = self._over_the_relayed if relayed else self._over_the_same
        if await over_the_same(transaction, verdict):
            return
        try:
            ae = self._known.get(transaction.calling_ae_title)
        except NotFound as error:  # somebody may write it into the file
            raise BackendUnavailable(f"no way to report: {error}") from error
        status = await (self._by_relay if ae.behind_proxy else self._over_another)(ae, transaction, verdict)
        self._check(status, transaction)

    async def _over_the_same(self, transaction: Transaction, verdict: Verdict) -> bool:
        open_one = self._open.get(transaction.association_id)
        context = _context(open_one)
        requests = open_one.association.sub_operations if open_one else None
        if open_one is None or requests is None or context is None:
            return False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(open_one.closed.wait(), self.same_association_seconds)
        if not requests.is_open:
            return False
        data = await self._encoded(transaction, verdict, context.transfer_syntax)
        try:
            response = await requests.request(context.context_id, _command(verdict), data)
        except RetryableError as error:
            log.info("report not taken over the same association", transaction=transaction.uid, why=str(error))
            return False
        return self._taken(transaction, response.command.status)

    async def _over_the_relayed(self, transaction: Transaction, verdict: Verdict) -> bool:
        """The association is one of a proxy at the other end."""
        relay = self._ways.relay
        if relay is None:
            return False
        await asyncio.sleep(self.same_association_seconds)
        origin = Origin(transaction.association_id, transaction.calling_ae_title, self._ae_title)
        call = Call(origin, STORAGE_COMMITMENT, transaction.transfer_syntax, _command(verdict))
        try:
            response = await relay.report(call, await self._encoded(transaction, verdict, call.transfer_syntax))
        except RetryableError as error:
            log.info("report not taken over the relayed association", transaction=transaction.uid, why=str(error))
            return False
        return self._taken(transaction, response.command.status)

    def _taken(self, transaction: Transaction, status: int) -> bool:
        """A requestor that refuses it may expect it over another association, and is not waited for on this one."""
        if status != Status.SUCCESS:
            log.info("report refused over its association", transaction=transaction.uid, status=f"{status:04X}H")
        return status == Status.SUCCESS

    async def _over_another(self, ae: KnownAe, transaction: Transaction, verdict: Verdict) -> int:
        """An association in which this side is the SCP all the same: by role selection (PS3.7 annex D.3.3.4)."""
        async with associated(
            self._ways.peer(ae),
            calling_ae_title=self._ae_title,
            called_ae_title=ae.title,
            contexts=propose([(STORAGE_COMMITMENT, (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN))]),
            roles={STORAGE_COMMITMENT: Role(scu=False, scp=True)},
        ) as requestor:
            context = next(iter(requestor.contexts.values()), None)
            if context is None:
                raise UnsupportedSopClass(f"{ae.title} takes no reports of storage commitment")
            data = await self._encoded(transaction, verdict, context.transfer_syntax)
            responses = [one async for one in requestor.request(context.context_id, _command(verdict), data)]
            return responses[-1].command.status

    async def _by_relay(self, ae: KnownAe, transaction: Transaction, verdict: Verdict) -> int:
        origin = Origin(uuid4().hex, self._ae_title, ae.title)
        call = Call(origin, STORAGE_COMMITMENT, IMPLICIT_VR_LITTLE_ENDIAN, _command(verdict))
        data = await self._encoded(transaction, verdict, IMPLICIT_VR_LITTLE_ENDIAN)
        responses = self._ways.link(ae).request(call, data)
        async with aclosing(responses) as relayed:  # type: ignore[type-var]  # a generator behind its port
            async for response in relayed:
                return response.command.status
        raise BackendUnavailable(f"{ae.title} gave no response to the report")

    async def _encoded(self, transaction: Transaction, verdict: Verdict, transfer_syntax: str) -> bytes:
        encoding = encoding_of(transfer_syntax)
        return await asyncio.to_thread(write_report, transaction.uid, verdict, self._ae_title, encoding)

    def _check(self, status: int, transaction: Transaction) -> None:
        if status != Status.SUCCESS:
            raise BackendUnavailable(
                f"{transaction.calling_ae_title} answered the report of {transaction.uid} {status:04X}H"
            )


def _context(open_one: _Open | None) -> AcceptedContext | None:
    contexts = open_one.association.contexts.values() if open_one else ()
    return next((one for one in contexts if one.abstract_syntax == STORAGE_COMMITMENT), None)


def _command(verdict: Verdict) -> CommandSet:
    return CommandSet(
        {
            AFFECTED_SOP_CLASS_UID: STORAGE_COMMITMENT,
            COMMAND_FIELD: CommandField.N_EVENT_REPORT_RQ,
            MESSAGE_ID: 1,
            COMMAND_DATA_SET_TYPE: 0x0001,
            AFFECTED_SOP_INSTANCE_UID: WELL_KNOWN_INSTANCE,
            EVENT_TYPE_ID: verdict.event_type,
        }
    )

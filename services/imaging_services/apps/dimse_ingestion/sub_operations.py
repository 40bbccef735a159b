"""The sub-operations of a C-MOVE or C-GET: one C-STORE after another, with their counts (PS3.4 section C.4.2.3)."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog
from prometheus_client import Counter

from imaging_services.apps.dimse_ingestion.destinations import Destination, Unreachable
from imaging_services.apps.dimse_ingestion.identifiers import Key, encode_identifier
from imaging_services.apps.dimse_ingestion.outgoing import Outbox, Outgoing
from imaging_services.domain.dicom.command_set import (
    MOVE_ORIGINATOR_AE_TITLE,
    MOVE_ORIGINATOR_MESSAGE_ID,
    NUMBER_OF_COMPLETED_SUB_OPERATIONS,
    NUMBER_OF_FAILED_SUB_OPERATIONS,
    NUMBER_OF_REMAINING_SUB_OPERATIONS,
    NUMBER_OF_WARNING_SUB_OPERATIONS,
    PRIORITY,
    CommandSet,
    store_request,
)
from imaging_services.domain.dicom.dimse import Cancellation, DimseResponse, Status, StoreAnswer
from imaging_services.domain.dicom.transfer_syntaxes import Encoding
from imaging_services.domain.errors import ImagingError, Refused, UnsupportedSopClass, answer_for
from imaging_services.domain.manifest.query import InstanceLocation

log = structlog.get_logger(__name__)

SUB_OPERATIONS = Counter(
    "imaging_retrieve_sub_operations_total", "C-STOREs of C-MOVE and C-GET by outcome", ["outcome"]
)

FAILED_SOP_INSTANCE_UID_LIST = 0x00080058
SIGN_OF_LIFE_SECONDS = 5.0
"""A pending response comes at least so often, also while one large instance is being sent."""

_US_MAX = 0xFFFF
_OUT_OF_RESOURCES = 0xA7  # statuses A700H to A7FFH (PS3.4 table B.2-1)
_LONGEST_LIST = 0xFFFE  # bytes of a UI value in Explicit VR (PS3.5 section 7.1.2)


@dataclass(frozen=True, slots=True)
class Originator:
    """The C-MOVE that sub-operations are due to: AE title of its requestor, its Message ID (PS3.7 section 9.1.1.1)."""

    ae_title: str
    message_id: int


@dataclass(slots=True)
class Counts:
    """How far the sub-operations are; ``again`` are those failed that may succeed later. Counts are sent as US: above
    65535 they stay there."""

    remaining: int
    completed: int = 0
    warning: int = 0
    failed: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    reason: str = ""

    def add(self, sop_instance_uid: str, answer: StoreAnswer) -> None:
        """One sub-operation has ended. B000H, B006H and B007H are the warnings of C-STORE (PS3.4 table B.2-1)."""
        self.remaining -= 1
        if answer.status == Status.SUCCESS:
            self.completed += 1
        elif answer.status >> 12 == 0xB or answer.status in (0x0001, 0x0107, 0x0116):
            self.warning += 1
        else:
            self.failed.append(sop_instance_uid)
            if answer.status >> 8 == _OUT_OF_RESOURCES:
                self.again.append(sop_instance_uid)
            self.reason = self.reason or answer.error_comment or f"C-STORE was answered {answer.status:04X}H"

    def fail_rest(self, locations: Sequence[InstanceLocation], reason: str) -> None:
        """The destination takes none of these."""
        for location in locations:
            self.add(location.sop_instance_uid, StoreAnswer(Status.OUT_OF_RESOURCES, reason))

    def response(self, command: CommandSet, status: int, encoding: Encoding) -> DimseResponse:
        """A response with the counts; a final one that is not success names what failed."""
        final = status != Status.PENDING
        named = final and status != Status.SUCCESS and bool(self.failed)
        answer = command.response(status, has_data_set=named, error_comment=self.reason if final else "")
        if not final or status == Status.CANCEL:  # PS3.7 section 9.1.4.1.6
            answer.elements[NUMBER_OF_REMAINING_SUB_OPERATIONS] = min(self.remaining, _US_MAX)
        answer.elements[NUMBER_OF_COMPLETED_SUB_OPERATIONS] = min(self.completed, _US_MAX)
        answer.elements[NUMBER_OF_FAILED_SUB_OPERATIONS] = min(len(self.failed), _US_MAX)
        answer.elements[NUMBER_OF_WARNING_SUB_OPERATIONS] = min(self.warning, _US_MAX)
        return DimseResponse(answer, self._identifier(encoding) if named else None)

    def final_status(self) -> Status:
        """Success, warning, or refused when nothing could be sent (PS3.4 section C.4.2.3.1)."""
        if not self.failed and not self.warning:
            return Status.SUCCESS
        if self.completed or self.warning:
            return Status.SUB_OPERATIONS_WARNING
        return Status.UNABLE_TO_PERFORM_SUB_OPERATIONS

    def _identifier(self, encoding: Encoding) -> bytes:
        named, length = 0, 0
        while named < len(self.failed) and length + len(self.failed[named]) < _LONGEST_LIST:
            length += len(self.failed[named]) + 1
            named += 1
        return encode_identifier([Key(FAILED_SOP_INSTANCE_UID_LIST, "UI", tuple(self.failed[:named]))], encoding)


@dataclass(frozen=True, slots=True)
class Retrieve:
    """One C-MOVE or C-GET: its command, how its identifiers are encoded, and whom the C-STOREs name as originator."""

    command: CommandSet
    encoding: Encoding
    cancellation: Cancellation
    originator: Originator | None = None


async def perform(
    retrieve: Retrieve,
    locations: Sequence[InstanceLocation],
    destination: Destination,
    outbox: Outbox,
    counts: Counts | None = None,
) -> AsyncGenerator[DimseResponse, None]:
    """Send the instances; pending responses with the counts, and the final one. A C-CANCEL is honoured between two
    sub-operations. ``counts`` are of these instances, for whoever looks at them afterwards."""
    retrieve.cancellation.handle()
    counts = counts or Counts(len(locations))
    async with aclosing(outbox.in_order(locations)) as items:
        async for outgoing in items:
            if retrieve.cancellation.requested:
                break
            sending = asyncio.create_task(_send(retrieve, outgoing, destination, outbox))
            try:
                while not (await asyncio.wait({sending}, timeout=SIGN_OF_LIFE_SECONDS))[0]:
                    yield counts.response(retrieve.command, Status.PENDING, retrieve.encoding)
                counts.add(outgoing.location.sop_instance_uid, sending.result())
            except Unreachable as error:
                counts.fail_rest(locations[len(locations) - counts.remaining :], str(error))
                break
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
            if counts.remaining:
                yield counts.response(retrieve.command, Status.PENDING, retrieve.encoding)
    status = Status.CANCEL if counts.remaining else counts.final_status()
    log.info(
        "retrieve over",
        status=f"{int(status):04X}H",
        completed=counts.completed,
        failed=len(counts.failed),
        warning=counts.warning,
        remaining=counts.remaining,
        why=counts.reason or None,
    )
    SUB_OPERATIONS.labels("completed").inc(counts.completed)
    SUB_OPERATIONS.labels("failed").inc(len(counts.failed))
    SUB_OPERATIONS.labels("warning").inc(counts.warning)
    yield counts.response(retrieve.command, status, retrieve.encoding)


async def _send(retrieve: Retrieve, outgoing: Outgoing, destination: Destination, outbox: Outbox) -> StoreAnswer:
    """One sub-operation; whatever goes wrong with this instance alone is its failure."""
    try:
        return await _first_accepted(retrieve, outgoing, destination, outbox)
    except Unreachable:
        raise
    except ImagingError as error:
        log.warning("sub-operation failed", sop_instance=outgoing.location.sop_instance_uid, why=str(error))
        return StoreAnswer(answer_for(error).dimse, str(error))
    except Exception as error:
        log.exception("sub-operation failed unforeseen", sop_instance=outgoing.location.sop_instance_uid)
        return StoreAnswer(answer_for(error).dimse, "failed unforeseen")


async def _first_accepted(
    retrieve: Retrieve, outgoing: Outgoing, destination: Destination, outbox: Outbox
) -> StoreAnswer:
    refusal: ImagingError = UnsupportedSopClass("no transfer syntax to offer")
    for number, syntax in enumerate(destination.candidates(outgoing.location, outbox.transcodes)):
        data = await outbox.data(outgoing, syntax)
        try:
            return await destination.store(outgoing.location, syntax, _command(retrieve, outgoing.location), data)
        except (Refused, UnsupportedSopClass) as error:
            refusal = refusal if number else error
        finally:
            await data.close()
    raise refusal


def _command(retrieve: Retrieve, location: InstanceLocation) -> CommandSet:
    priority = retrieve.command.number(PRIORITY, 0)
    command = store_request(location.sop_class_uid, location.sop_instance_uid, priority=priority)
    if retrieve.originator is not None:
        command.elements[MOVE_ORIGINATOR_AE_TITLE] = retrieve.originator.ae_title
        command.elements[MOVE_ORIGINATOR_MESSAGE_ID] = retrieve.originator.message_id
    return command

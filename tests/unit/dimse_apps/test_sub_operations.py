"""Counts and final status of a retrieve, and what its identifier names (PS3.4 section C.4.2)."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.apps.dimse_ingestion.destinations import ProxyDestination
from imaging_services.apps.dimse_ingestion.identifiers import decode_identifier
from imaging_services.apps.dimse_ingestion.outgoing import Outbox, Transcoder
from imaging_services.apps.dimse_ingestion.sub_operations import Counts, Retrieve, perform
from imaging_services.domain.dicom.command_set import CommandField, request
from imaging_services.domain.dicom.dimse import Cancellation, Status, StoreAnswer
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_LITTLE, IMPLICIT_LITTLE
from imaging_services.domain.errors import AssociationRejected, ImagingError, OutOfResources
from imaging_services.domain.manifest.query import InstanceLocation
from imaging_services.domain.relay.ports import RelayLink
from support.instances import EXPLICIT, instance, part10

MOVE = request(CommandField.C_MOVE_RQ, "1.2.840.10008.5.1.4.1.2.2.2", message_id=5, has_data_set=True)


@pytest.mark.parametrize(
    ("statuses", "final"),
    [
        ([], 0x0000),
        ([0x0000, 0x0000], 0x0000),
        ([0x0000, 0xA700], 0xB000),
        ([0x0000, 0xB007], 0xB000),
        ([0xB000], 0xB000),
        ([0x0110, 0xC000], 0xA702),
    ],
)
def test_final_status(statuses, final):
    counts = Counts(len(statuses))
    for status in statuses:
        counts.add("1.2.3", StoreAnswer(status))
    assert counts.remaining == 0
    assert counts.final_status() == final


def test_remaining_is_told_while_there_is_some_and_failures_at_the_end():
    counts = Counts(3)
    counts.add("1.2.3", StoreAnswer(0xA700, "full"))
    pending = counts.response(MOVE, Status.PENDING, EXPLICIT_LITTLE)
    assert pending.data is None
    assert [pending.command.number(0x1020 + offset, -1) for offset in range(4)] == [2, 0, 1, 0]
    cancelled = counts.response(MOVE, Status.CANCEL, EXPLICIT_LITTLE)
    assert cancelled.command.number(0x1020, -1) == 2
    final = counts.response(MOVE, Status.UNABLE_TO_PERFORM_SUB_OPERATIONS, EXPLICIT_LITTLE)
    assert final.command.number(0x1020, -1) == -1
    assert final.command.text(0x0902) == "full"
    assert [key.values for key in decode_identifier(final.data, EXPLICIT_LITTLE)] == [("1.2.3",)]


@pytest.mark.parametrize("encoding", [EXPLICIT_LITTLE, IMPLICIT_LITTLE])
def test_more_failures_than_an_element_can_name(encoding):
    counts = Counts(70_000)
    for number in range(70_000):
        counts.add(f"1.2.840.99999.{number}", StoreAnswer(0x0110))
    final = counts.response(MOVE, counts.final_status(), encoding)
    (named,) = decode_identifier(final.data, encoding)
    assert named.values == tuple(counts.failed[: len(named.values)])
    assert 1000 < len(named.values) < 65_536 / 16
    assert final.command.number(0x1022, -1) == 0xFFFF


@dataclass
class Taking:
    """Takes every instance but ``not_this``, at which it fails in a way that nobody has foreseen."""

    not_this: str

    def candidates(self, location: InstanceLocation, transcodes: bool) -> list[str]:
        return [location.transfer_syntax_uid]

    async def store(self, location: InstanceLocation, *_: Any) -> StoreAnswer:
        if location.sop_instance_uid == self.not_this:
            raise ValueError("unforeseen")
        return StoreAnswer(0x0000)


def a_location(number: int, size: int) -> InstanceLocation:
    names = ("1.1", "1.2", f"1.3.{number}", "1.4", EXPLICIT, "s", "1.dcm")
    return InstanceLocation(*names, None, size, None, None, datetime.now(UTC))


async def test_one_failure_that_was_not_foreseen_does_not_end_the_others():
    space, file = MemoryObjectStore(), part10(instance())
    await space.put("1.dcm", file)
    locations = [a_location(number, len(file)) for number in range(3)]
    retrieve = Retrieve(MOVE, EXPLICIT_LITTLE, Cancellation())
    responses = [one async for one in perform(retrieve, locations, Taking("1.3.0"), Outbox(space, None))]
    assert [one.command.status for one in responses] == [0xFF00, 0xFF00, 0xB000]
    assert [key.values for key in decode_identifier(responses[-1].data, EXPLICIT_LITTLE)] == [("1.3.0",)]


@dataclass
class Rejecting:
    """The proxy at the other end, whose target rejects every association."""

    error: type[ImagingError]
    asked: int = 0

    async def store_confirmed(self, call: Any, data: Any) -> StoreAnswer:
        self.asked += 1
        raise self.error("rejected")


@pytest.mark.parametrize("transcodes", [False, True])
@pytest.mark.parametrize("error", [AssociationRejected, OutOfResources])
async def test_a_target_that_rejects_associations_is_asked_once(transcodes, error):
    space, file, link = MemoryObjectStore(), part10(instance()), Rejecting(error)
    await space.put("1.dcm", file)
    locations = [a_location(number, len(file)) for number in range(3)]
    destination = ProxyDestination(cast(RelayLink, link), calling="ARCHIVE", called="DEST")
    outbox = Outbox(space, cast(Transcoder, object()) if transcodes else None)
    retrieve = Retrieve(MOVE, EXPLICIT_LITTLE, Cancellation())
    (final,) = [one async for one in perform(retrieve, locations, destination, outbox)]
    assert (final.command.status, final.command.number(0x1022), link.asked) == (0xA702, 3, 1)

"""What makes an instance urgent, and that a series is never split."""

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from imaging_services.domain.dicom.command_set import PRIORITY, store_request
from imaging_services.domain.ingest import urgency as module
from imaging_services.domain.ingest.screening import screen
from imaging_services.domain.ingest.urgency import Urgency, UrgentAssociations, UrgentSeries, codes
from support.instances import blocks, encoded, instance

SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian]


def data_set(**elements) -> Dataset:
    one = instance()
    one.PixelData = bytes(200_000)
    for keyword, value in elements.items():
        setattr(one, keyword, value)
    return one


def requested(priority: str) -> list[Dataset]:
    item = Dataset()
    item.ScheduledProcedureStepID = "7"
    item.RequestedProcedurePriority = priority
    return [item]


async def header_of(one: Dataset, syntax=ExplicitVRLittleEndian):
    command = store_request(one.SOPClassUID, one.SOPInstanceUID)
    header, _ = await screen(blocks(encoded(one, syntax)), syntax, command)
    return header


async def covers(urgency: Urgency, one: Dataset, syntax=ExplicitVRLittleEndian, priority: int = 0) -> bool:
    command = store_request(one.SOPClassUID, one.SOPInstanceUID, priority=priority)
    return urgency.covers(await header_of(one, syntax), "ER 1", command)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.keyword)
async def test_modality(syntax):
    urgency = Urgency(modalities=codes("xa, ct"))
    assert await covers(urgency, data_set(Modality="CT"), syntax)
    assert not await covers(urgency, data_set(Modality="MR"), syntax)
    assert not await covers(urgency, data_set(Modality=""), syntax)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.keyword)
async def test_requested_procedure_priority_at_both_places(syntax):
    urgency = Urgency(procedure_priorities=codes("STAT,HIGH"))
    assert await covers(urgency, data_set(RequestedProcedurePriority="STAT"), syntax)
    assert await covers(urgency, data_set(RequestAttributesSequence=requested("HIGH")), syntax)
    assert not await covers(urgency, data_set(RequestAttributesSequence=requested("ROUTINE")), syntax)
    assert not await covers(urgency, data_set(), syntax)


async def test_a_sequence_of_undefined_length():
    one = data_set(RequestAttributesSequence=requested("STAT"))
    one["RequestAttributesSequence"].is_undefined_length = True
    one.RequestAttributesSequence[0].is_undefined_length_sequence_item = True
    assert await covers(Urgency(procedure_priorities=codes("stat")), one)


async def test_calling_ae_title_and_priority_of_the_request():
    assert await covers(Urgency(calling_ae_titles=frozenset({"ER 1"})), data_set())
    assert not await covers(Urgency(calling_ae_titles=frozenset({"CT2"})), data_set())
    assert await covers(Urgency(by_request=True), data_set(), priority=1)
    assert not await covers(Urgency(by_request=True), data_set(), priority=2)
    assert not await covers(Urgency(modalities=codes("CR")), data_set(Modality="CT"), priority=1)


async def test_a_request_without_a_number_as_priority_is_not_urgent():
    one = data_set()
    command = store_request(one.SOPClassUID, one.SOPInstanceUID)
    command.elements[PRIORITY] = b"\x01"
    assert not Urgency(by_request=True).covers(await header_of(one), "CT1", command)


async def test_the_first_decision_holds_for_the_series_within_an_association():
    associations = UrgentAssociations(Urgency(procedure_priorities=codes("STAT")))
    stat, routine = data_set(RequestedProcedurePriority="STAT"), data_set(RequestedProcedurePriority="ROUTINE")
    routine.SeriesInstanceUID = stat.SeriesInstanceUID
    other = data_set(SeriesInstanceUID="1.2.3.4")

    async def is_urgent(association_id: str, one: Dataset) -> bool:
        return associations.of(association_id, "CT1").is_urgent(await header_of(one))

    assert [await is_urgent("first", each) for each in (stat, routine, other, stat)] == [True, True, False, True]
    assert not await is_urgent("second", routine)
    assert not await is_urgent("second", stat)
    associations.forget("second")
    assert await is_urgent("second", stat)
    associations.forget("first")
    associations.forget("second")
    assert not associations._open


async def test_without_settings_nothing_is_remembered():
    associations = UrgentAssociations(Urgency())
    stat = await header_of(data_set(RequestedProcedurePriority="STAT"))
    assert not associations.of("first", "CT1").is_urgent(stat)
    assert not associations._open
    assert not UrgentSeries(Urgency()).is_urgent(stat)


async def test_associations_whose_end_nobody_tells_do_not_add_up(monkeypatch):
    monkeypatch.setattr(module, "_ASSOCIATIONS_REMEMBERED", 2)
    associations = UrgentAssociations(Urgency(procedure_priorities=codes("STAT")))
    stat, routine = data_set(RequestedProcedurePriority="STAT"), data_set(RequestedProcedurePriority="LOW")
    routine.SeriesInstanceUID = stat.SeriesInstanceUID
    for association_id in ("first", "second", "first", "third"):
        associations.of(association_id, "CT1").is_urgent(await header_of(stat))
    later = {name: associations.of(name, "CT1").is_urgent(await header_of(routine)) for name in ("first", "second")}
    assert later == {"first": True, "second": False}

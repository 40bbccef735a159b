"""What is urgent on arrival is announced as urgent, and its study's revision too: by the relay or directly."""

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pydicom
import pytest

from imaging_services.adapters.dimse.urgency_settings import UrgencyVariables
from imaging_services.apps.dimse_ingestion.intake import DirectHandler, RelayedHandler
from imaging_services.domain.dicom.command_set import store_request
from imaging_services.domain.events.envelope import DICOM_AVAILABLE, IMAGE_STORED, STUDY_REVISION, is_urgent
from imaging_services.domain.ingest.urgency import Urgency, codes
from imaging_services.domain.relay.admission import Admission
from imaging_services.domain.relay.messages import AssociationNotice, AssociationState, Origin, StoreMessage
from support.dimse_archive import Archive, archive
from support.instances import EXPLICIT, encoded, instance
from support.manifests import published
from support.relay import blocks, call
from support.urgency import EACH_SETTING_ALONE

STAT = Urgency(procedure_priorities=codes("STAT"))
TYPES = [IMAGE_STORED, DICOM_AVAILABLE, STUDY_REVISION]


def requested(priority: str) -> dict[str, list[pydicom.Dataset]]:
    item = pydicom.Dataset()
    item.RequestedProcedurePriority = priority
    return {"RequestAttributesSequence": [item]}


def direct(running: Archive, urgency: Urgency) -> DirectHandler:
    return DirectHandler(running.intake, running.holds, Admission(frozenset()), lambda contexts: None, urgency)


def association(calling: str, name: str = "first") -> SimpleNamespace:
    return SimpleNamespace(association_id=name, request=SimpleNamespace(calling_ae_title=calling))


async def send(to: DirectHandler, over: SimpleNamespace, one: pydicom.Dataset, priority: int = 0) -> None:
    context = SimpleNamespace(abstract_syntax=one.SOPClassUID, transfer_syntax=EXPLICIT)
    command = store_request(one.SOPClassUID, one.SOPInstanceUID, priority=priority)
    await to.store(over, SimpleNamespace(data=blocks(encoded(one)), context=context, command=command))


async def relay(to: RelayedHandler, one: pydicom.Dataset, priority: int = 0, *, urgent: bool = False) -> None:
    command = store_request(one.SOPClassUID, one.SOPInstanceUID, priority=priority)
    sent, data = call(command, association="first"), encoded(one)
    await to.store(StoreMessage(sent, "m", len(data), "", urgent=urgent), lambda: blocks(data))


async def announced(running: Archive) -> dict[str, list[bool]]:
    """By type, whether each event is urgent."""
    marks: dict[str, list[bool]] = {}
    for event in await published(running.manifest):
        marks.setdefault(event.type, []).append(is_urgent(event))
    return marks


@pytest.mark.parametrize("urgent", [True, False])
async def test_the_events_of_an_instance_are_as_urgent_as_it_was_on_its_way(tmp_path: Path, urgent: bool):
    async with archive(tmp_path, {}) as running:
        await relay(RelayedHandler(running.intake, running.holds, lambda contexts: None), instance(), urgent=urgent)
        await running.manifest.release("first")
        assert await running.manifest.revise(timedelta(0)) == 1
        assert await announced(running) == {kind: [urgent] for kind in TYPES}


async def test_the_events_of_a_direct_association_are_urgent_too(tmp_path: Path):
    async with archive(tmp_path, {}) as running:
        handler, over = direct(running, STAT), association("CT1")
        await send(handler, over, instance(**requested("STAT")))
        await handler.closed(over, clean=True)
        assert await running.manifest.revise(timedelta(0)) == 1
        assert await announced(running) == {kind: [True] for kind in TYPES}


@EACH_SETTING_ALONE
async def test_each_setting_alone(tmp_path: Path, variables: dict[str, str], urgent: list[bool]):
    async with archive(tmp_path, {}) as running:
        handler = direct(running, UrgencyVariables(**variables).urgency())
        await send(handler, association("ER", "1"), instance())
        await send(handler, association("CT2", "2"), instance(Modality="XA"))
        await send(handler, association("CT2", "3"), instance(RequestedProcedurePriority="HIGH"))
        await send(handler, association("CT2", "4"), instance(), priority=1)
        assert (await announced(running))[IMAGE_STORED] == urgent


async def test_a_series_stays_together_until_its_association_ends(tmp_path: Path):
    async with archive(tmp_path, {}) as running:
        handler, over = direct(running, STAT), association("CT1")
        await send(handler, over, instance(SeriesInstanceUID="1.2.3", **requested("STAT")))
        await send(handler, over, instance(SeriesInstanceUID="1.2.3", **requested("LOW")))
        await handler.closed(over, clean=True)
        await send(handler, over, instance(SeriesInstanceUID="1.2.3", **requested("LOW")))
        assert (await announced(running))[IMAGE_STORED] == [True, True, False]


async def test_what_the_proxy_did_not_send_as_urgent_the_ingestion_may_find_urgent(tmp_path: Path):
    async with archive(tmp_path, {}) as running:
        handler = RelayedHandler(running.intake, running.holds, lambda contexts: None, STAT)
        await relay(handler, instance(SeriesInstanceUID="1.2.3"), urgent=True)
        await relay(handler, instance(SeriesInstanceUID="1.2.4", **requested("STAT")))
        await relay(handler, instance(SeriesInstanceUID="1.2.4"))
        await relay(handler, instance(SeriesInstanceUID="1.2.5"))
        closed = AssociationNotice(Origin("first", "CT1", "ARCHIVE"), AssociationState.CLOSED, 60)
        await handler.noticed(closed)
        await relay(handler, instance(SeriesInstanceUID="1.2.4"))
        assert (await announced(running))[IMAGE_STORED] == [True, True, True, False, False]


@pytest.mark.parametrize(
    ("urgency", "urgent"),
    [
        (Urgency(calling_ae_titles=frozenset({"MOD ÄLITY"})), [True, True]),
        (Urgency(by_request=True), [False, True]),
    ],
    ids=["caller", "request"],
)
async def test_the_relay_tells_the_caller_and_the_priority_of_the_request(
    tmp_path: Path, urgency: Urgency, urgent: list[bool]
):
    async with archive(tmp_path, {}) as running:
        handler = RelayedHandler(running.intake, running.holds, lambda contexts: None, urgency)
        await relay(handler, instance())
        await relay(handler, instance(), priority=1)
        assert (await announced(running))[IMAGE_STORED] == urgent

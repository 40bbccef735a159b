"""Associations hold studies: once, renewed, released."""

import asyncio

import pytest

from imaging_services.apps.dimse_ingestion.holds import AssociationHolds
from imaging_services.domain.errors import BackendUnavailable
from imaging_services.domain.relay.messages import AssociationNotice, AssociationState, Origin


class Recording:
    def __init__(self):
        self.calls, self.fail = [], False

    async def _call(self, *call):
        if self.fail:
            raise BackendUnavailable("database away")
        self.calls.append(call)

    async def hold(self, association_id, study_instance_uid, lease):
        await self._call("hold", association_id, study_instance_uid)

    async def renew(self, association_id, lease):
        await self._call("renew", association_id, lease.total_seconds())

    async def release(self, association_id):
        await self._call("release", association_id)


def notice(state: AssociationState, lease: float = 30) -> AssociationNotice:
    return AssociationNotice(Origin("a", "CALLING", "CALLED"), state, lease)


async def test_one_hold_for_each_study():
    recording = Recording()
    holds = AssociationHolds(recording, 60)
    for study in ("1", "1", "2", "1"):
        await holds.hold("a", study, direct=True)
    await holds.ended("a")
    await holds.ended("b")
    assert recording.calls == [("hold", "a", "1"), ("hold", "a", "2"), ("release", "a")]


async def test_notices_renew_and_release():
    recording = Recording()
    holds = AssociationHolds(recording, 60)
    await holds.noticed(notice(AssociationState.OPEN))
    await holds.hold("a", "1", direct=False)
    await holds.noticed(notice(AssociationState.RENEWED))
    await holds.noticed(notice(AssociationState.CLOSED))
    assert recording.calls == [("hold", "a", "1"), ("renew", "a", 30), ("release", "a")]


async def test_a_hold_that_fails_fails_the_store_and_is_tried_again():
    recording = Recording()
    holds = AssociationHolds(recording, 60)
    recording.fail = True
    with pytest.raises(BackendUnavailable):
        await holds.hold("a", "1", direct=True)
    await holds.ended("a")  # its lease ends it
    with pytest.raises(BackendUnavailable):
        await holds.noticed(notice(AssociationState.CLOSED))  # the relay tells it again
    recording.fail = False
    await holds.hold("a", "1", direct=True)
    assert recording.calls == [("hold", "a", "1")]


async def test_own_associations_are_renewed_and_others_forgotten():
    recording = Recording()
    holds = AssociationHolds(recording, 0.3)
    keeping = asyncio.create_task(holds.keep())
    await holds.hold("own", "1", direct=True)
    await holds.hold("far", "1", direct=False)
    async with asyncio.timeout(30):
        while recording.calls.count(("renew", "own", 0.3)) < 3:
            await asyncio.sleep(0.02)
    keeping.cancel()
    assert ("renew", "far", 0.3) not in recording.calls
    await holds.hold("own", "1", direct=True)
    await holds.hold("far", "1", direct=False)
    assert recording.calls.count(("hold", "own", "1")) == 1
    assert recording.calls.count(("hold", "far", "1")) == 2

"""What comes over the relay as urgent is announced as urgent, and its study's revision too."""

from datetime import timedelta

import pytest

from imaging_services.apps.dimse_ingestion.intake import RelayedHandler
from imaging_services.domain.dicom.command_set import store_request
from imaging_services.domain.events.envelope import DICOM_AVAILABLE, IMAGE_STORED, STUDY_REVISION, is_urgent
from imaging_services.domain.relay.messages import StoreMessage
from support.dimse_archive import archive
from support.instances import encoded, instance
from support.manifests import published
from support.relay import blocks, call


@pytest.mark.parametrize("urgent", [True, False])
async def test_the_events_of_an_instance_are_as_urgent_as_it_was_on_its_way(tmp_path, urgent):
    dataset = instance()
    data = encoded(dataset)
    command = store_request(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID))
    async with archive(tmp_path, {}) as running:
        handler = RelayedHandler(running.intake, running.holds, lambda contexts: None)
        await handler.store(
            StoreMessage(sent := call(command), "m", len(data), "", urgent=urgent), lambda: blocks(data)
        )
        await running.manifest.release(sent.origin.association_id)
        assert await running.manifest.revise(timedelta(0)) == 1
        events = await published(running.manifest)
    marks = {event.type: is_urgent(event) for event in events}
    assert marks == dict.fromkeys([IMAGE_STORED, DICOM_AVAILABLE, STUDY_REVISION], urgent)

"""What two versions share in a rolling update: documents that wait are in zlib's format, ids are UUIDs of version 5."""

import uuid
import zlib

from imaging_services.adapters.postgres.outbox import _event, packed
from imaging_services.domain.events.envelope import IMAGE_STORED, event_id
from support.manifest_events import stored


def test_the_version_before_reads_what_this_one_writes():
    event = stored("1.2", "1.2.1", "1.2.1.1")
    assert zlib.decompress(packed(event)) == event.data


def test_this_version_reads_what_the_one_before_has_written():
    event = stored("1.2", "1.2.1", "1.2.1.1")
    row = (7, IMAGE_STORED, event.source, event.id, True, zlib.compress(event.data, 1), event.time, {})
    assert _event(row) == event


def test_ids_are_those_that_uuid5_makes():
    namespace = uuid.UUID("5b0f7c1e-6a35-5f4e-9c55-2f1d6d0c7a10")
    for number in range(64):
        made = event_id(IMAGE_STORED, "nörth", number)
        assert made == str(uuid.uuid5(namespace, f"{IMAGE_STORED}|nörth|{number}"))

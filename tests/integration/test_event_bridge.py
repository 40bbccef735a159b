"""A hub and two edges on a real NATS server: every type arrives once, everywhere it belongs and nowhere else."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import orjson
import pytest
from fastapi import FastAPI
from nats.js.api import RetentionPolicy, StreamConfig

from imaging_services.adapters.http.cloudevents import event_router
from imaging_services.adapters.nats.mailbox import JetStreamMailboxes
from imaging_services.apps.event_bridge.settings import Settings
from imaging_services.domain.errors import BackendUnavailable, Refused
from imaging_services.domain.events.envelope import (
    DICOM_AVAILABLE,
    IMAGE_STORED,
    STUDY_REVISION,
    CloudEvent,
    event_id,
)
from imaging_services.domain.events.http_binding import encode_http
from support.events import an_event, eventually
from support.http_server import serving
from support.ports import a_free_port
from support.servers import Nats
from support.site import Site, a_site, write_locations


@dataclass
class Wheel:
    """A hub and its edges, north and south."""

    hub: Site
    north: Site
    south: Site
    root: str
    locations: Path

    @property
    def mailboxes(self) -> JetStreamMailboxes:
        return JetStreamMailboxes(self.hub.client, self.root)

    async def settled(self) -> None:
        """Wait until nothing moves any more: no mailbox holds anything, twice in a row."""
        js = self.hub.client.jetstream()
        quiet = 0
        async with asyncio.timeout(60):
            while quiet < 3:
                await asyncio.sleep(0.15)
                quiet = quiet + 1 if (await js.stream_info(self.root)).state.messages == 0 else 0


@pytest.fixture
async def wheel(nats_server: Nats, tmp_path: Path) -> AsyncIterator[Wheel]:
    root = f"bridge-{uuid.uuid4().hex}"
    locations = write_locations(tmp_path / "locations", **{"North Clinic": "north", "South Clinic": "south"})
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        hub = await enter(a_site("hub", nats_server.url, root, BRIDGE_ROLE="hub", EDGE_LOCATION_CONFIG=locations))
        north, south = [
            await enter(a_site(name, nats_server.url, root, BRIDGE_ROLE="edge", EDGE_MAILBOX_ID=name))
            for name in ("north", "south")
        ]
        yield Wheel(hub, north, south, root, locations)


def image(source: str = "north") -> CloudEvent:
    """As a producer at the edge makes it."""
    data = {"image": {"transferSyntaxUID": "1.2", "elements": []}, "store": {"provider": source, "objectName": "x"}}
    return CloudEvent(IMAGE_STORED, source, str(uuid.uuid4()), orjson.dumps(data))


async def test_all_three_types_go_from_an_edge_to_the_hub_and_the_other_edge_once(wheel: Wheel) -> None:
    stored, revision = image(), an_event(STUDY_REVISION)
    available = event_id(DICOM_AVAILABLE, stored.id)
    sites = (wheel.north, wheel.hub, wheel.south)
    async with wheel.hub.bridge(), wheel.north.bridge(), wheel.south.bridge():
        await wheel.north.process(stored)
        await wheel.north.process(revision)
        await eventually(lambda: all(len(site.subscribed) >= 3 for site in sites))
        await wheel.settled()
    for site in sites:
        # Each site has recorded the image, announced it once and got the revision once.
        assert [event.id for event in site.recorded] == [stored.id], site.name
        assert site.got(IMAGE_STORED) == [stored.id], site.name
        assert site.got(DICOM_AVAILABLE) == [available], site.name
        assert site.got(STUDY_REVISION) == [revision.id], site.name
    (at_hub,) = wheel.hub.recorded
    assert (at_hub.source, at_hub.data, at_hub.time) == (stored.source, stored.data, stored.time)
    assert at_hub.extensions == {"bridgeorigin": "north", "bridgehops": "1"}
    assert wheel.south.recorded[0].extensions == {"bridgeorigin": "north", "bridgehops": "2"}


async def test_the_hubs_own_events_go_to_every_edge_and_do_not_come_back(wheel: Wheel) -> None:
    stored = image("hub")
    async with wheel.hub.bridge(), wheel.north.bridge(), wheel.south.bridge():
        await wheel.hub.process(stored)
        await eventually(lambda: wheel.north.got(DICOM_AVAILABLE) and wheel.south.got(DICOM_AVAILABLE))
        await wheel.settled()
    for site in (wheel.hub, wheel.north, wheel.south):
        assert site.got(IMAGE_STORED) == [stored.id]
        assert len(site.got(DICOM_AVAILABLE)) == 1
    assert wheel.north.recorded[0].extensions == {"bridgeorigin": "hub", "bridgehops": "1"}


@pytest.mark.parametrize("how", ["attribute target", "attribute edgetarget", "data"])
async def test_a_target_gets_the_event_alone(wheel: Wheel, how: str) -> None:
    if how == "data":
        event = an_event(STUDY_REVISION, target="South Clinic")
    else:
        event = replace(an_event(STUDY_REVISION), extensions={how.split()[1]: "South Clinic"})
    async with wheel.hub.bridge(), wheel.north.bridge(), wheel.south.bridge():
        await wheel.hub.log.append([event])
        await eventually(lambda: wheel.south.got(STUDY_REVISION))
        await wheel.settled()
    assert wheel.south.got(STUDY_REVISION) == [event.id]
    assert wheel.north.subscribed == []


async def test_an_unknown_target_becomes_a_dead_letter_and_the_rest_flows(wheel: Wheel) -> None:
    lost, good = an_event(target="West Clinic"), an_event()
    async with wheel.hub.bridge(), wheel.north.bridge():
        await wheel.hub.log.append([lost, good])
        await eventually(lambda: wheel.north.got(DICOM_AVAILABLE))
    (letter,) = [letter async for letter in wheel.hub.log.dead_letters("event-bridge")]
    assert letter.event == lost
    assert "'West Clinic', which is no location" in letter.reason
    assert wheel.north.got(DICOM_AVAILABLE) == [good.id]


async def test_an_edge_that_was_away_gets_everything_once(wheel: Wheel) -> None:
    async with wheel.hub.bridge(), wheel.north.bridge():
        async with wheel.south.bridge():
            pass
        missed = [an_event(number=number) for number in range(30)]
        await wheel.north.log.append(missed)
        await eventually(lambda: len(wheel.hub.got(DICOM_AVAILABLE)) == 30)
        assert wheel.south.subscribed == []
        async with wheel.south.bridge():
            await eventually(lambda: len(wheel.south.got(DICOM_AVAILABLE)) >= 30)
            await wheel.settled()
    assert sorted(wheel.south.got(DICOM_AVAILABLE)) == sorted(event.id for event in missed)
    assert sorted(wheel.hub.got(DICOM_AVAILABLE)) == sorted(event.id for event in missed)


async def test_the_hub_may_be_away_too(wheel: Wheel) -> None:
    events = [an_event(number=number) for number in range(20)]
    async with wheel.north.bridge():
        await wheel.north.log.append(events)
        await asyncio.sleep(0.3)
        async with wheel.hub.bridge():
            await eventually(lambda: len(wheel.hub.got(DICOM_AVAILABLE)) == 20)


async def test_an_event_leaves_the_mailbox_only_when_the_processor_has_it(wheel: Wheel) -> None:
    wheel.hub.failures = [BackendUnavailable("database restarts")] * 3
    stored = image()
    async with wheel.hub.bridge(), wheel.north.bridge(), wheel.south.bridge():
        await wheel.north.process(stored)
        await eventually(lambda: wheel.hub.got(DICOM_AVAILABLE))
        await wheel.settled()
    assert wheel.hub.failures == []
    assert [event.id for event in wheel.hub.recorded] == [stored.id]


async def test_what_the_processor_refuses_is_a_dead_letter_of_the_mailbox_and_can_be_put_back(wheel: Wheel) -> None:
    wheel.hub.failures = [Refused("the series belongs to another provider")]
    bad, good = an_event(), an_event()
    async with wheel.hub.bridge(), wheel.north.bridge():
        await wheel.north.log.append([bad])
        await eventually(lambda: not wheel.hub.failures)
        await wheel.north.log.append([good])
        await eventually(lambda: wheel.hub.got(DICOM_AVAILABLE) == [good.id])
        (letter,) = [letter async for letter in wheel.mailboxes.dead_letters()]
        assert (letter.consumer, letter.event.id) == ("hub", bad.id)
        assert "another provider" in letter.reason
        assert await wheel.mailboxes.redrive("hub") == 1
        await eventually(lambda: wheel.hub.got(DICOM_AVAILABLE) == [good.id, bad.id])
        assert [letter async for letter in wheel.mailboxes.dead_letters()] == []


async def test_a_new_edge_is_served_without_a_restart(wheel: Wheel, nats_server: Nats) -> None:
    async with wheel.hub.bridge():
        write_locations(wheel.locations, **{"North Clinic": "north", "East Clinic": "east"})
        event = an_event()
        await wheel.hub.log.append([event])
        edge = a_site("east", nats_server.url, wheel.root, BRIDGE_ROLE="edge", EDGE_MAILBOX_ID="east")
        async with edge as east, east.bridge():
            await eventually(lambda: east.got(DICOM_AVAILABLE) == [event.id])
        # A slip of the pen changes nothing.
        wheel.locations.write_text('{"North Clinic": ')
        second = an_event()
        await wheel.hub.log.append([second])
        async with wheel.north.bridge():
            await eventually(lambda: wheel.north.got(DICOM_AVAILABLE) == [event.id, second.id])


async def test_the_frozen_stream_of_an_older_installation_is_extended(wheel: Wheel) -> None:
    old = f"{wheel.root}.wheel.hub.mailbox"
    js = wheel.hub.client.jetstream()
    await js.add_stream(StreamConfig(name=wheel.root, subjects=[old], retention=RetentionPolicy.WORK_QUEUE))
    event = an_event()
    async with wheel.hub.bridge(), wheel.north.bridge():
        await wheel.hub.log.append([event])
        await eventually(lambda: wheel.north.got(DICOM_AVAILABLE) == [event.id])
    config = (await js.stream_info(wheel.root)).config
    assert set(config.subjects or []) == {old, *(f"{wheel.root}.wheel.{edge}.mailbox" for edge in ("north", "south"))}


async def test_what_the_local_log_wants_is_no_wish_about_the_mailboxes(nats_server: Nats) -> None:
    root = f"bridge-{uuid.uuid4().hex}"
    local = {"EVENTS_RETENTION_DAYS": 60, "EVENTS_MAX_BYTES": 10_000_000, "NATS_RETENTION_DAYS": 7}
    site = a_site("north", nats_server.url, root, BRIDGE_ROLE="edge", EDGE_MAILBOX_ID="north", **local)
    async with site as north, north.bridge():
        js = north.client.jetstream()
        mailboxes = (await js.stream_info(root)).config
        log = (await js.stream_info(north.settings.event_subjects().event_stream)).config
    assert (log.max_age, log.max_bytes) == (60 * 86_400, 10_000_000)
    assert (mailboxes.max_age, mailboxes.max_bytes) == (7 * 86_400, -1)


async def test_a_message_in_the_mailbox_is_the_event_in_structured_json(wheel: Wheel) -> None:
    event = an_event()
    async with wheel.north.bridge():
        await wheel.north.log.append([event])
        js = wheel.hub.client.jetstream()
        async with asyncio.timeout(60):
            while (await js.stream_info(wheel.root)).state.messages == 0:
                await asyncio.sleep(0.05)
        message = await js.get_msg(wheel.root, 1)
    assert message.subject == f"{wheel.root}.wheel.hub.mailbox"
    document = orjson.loads(message.data or b"")
    assert (document["id"], document["type"], document["specversion"]) == (event.id, event.type, "1.0")
    assert document["data"] == orjson.loads(event.data)


async def test_posted_and_logged_it_is_still_one_event(wheel: Wheel) -> None:
    port = a_free_port()
    wheel.north.settings = wheel.north.settings.model_copy(update={"HTTP_PORT": port})
    event, foreign = an_event(), an_event("com.example.unknown")
    client = httpx.AsyncClient(trust_env=False)
    async with client, wheel.north.bridge(), wheel.hub.bridge(), wheel.south.bridge():
        url = f"http://127.0.0.1:{port}/"
        for one in (event, event, foreign):
            headers, body = encode_http(one)
            assert (await client.post(url, headers=headers, content=body)).status_code == 204
        await wheel.north.log.append([event])
        broken = await client.post(url, headers=encode_http(event)[0], content=b'{"cut')
        assert (broken.status_code, broken.json()["title"]) == (400, "InvalidInput")
        assert "not JSON" in broken.json()["detail"]
        assert (await client.post(url, content=b"hello")).status_code == 400
        await eventually(lambda: wheel.hub.got(DICOM_AVAILABLE))
        await wheel.settled()
    assert wheel.hub.got(DICOM_AVAILABLE) == [event.id]


async def test_a_hub_answers_an_unknown_target_and_a_loop_ends(wheel: Wheel) -> None:
    port = a_free_port()
    wheel.hub.settings = wheel.hub.settings.model_copy(update={"HTTP_PORT": port})
    far = replace(an_event(), extensions={"bridgeorigin": "north", "bridgehops": "2"})
    async with wheel.hub.bridge(), wheel.north.bridge(), wheel.south.bridge():
        async with httpx.AsyncClient(trust_env=False) as client:
            for event, status in ((an_event(target="nowhere"), 400), (far, 204)):
                headers, body = encode_http(event)
                answer = await client.post(f"http://127.0.0.1:{port}/", headers=headers, content=body)
                assert answer.status_code == status
        await wheel.settled()
    assert wheel.north.subscribed == wheel.south.subscribed == []


async def test_with_k_sink_alone_events_are_posted_there(wheel: Wheel) -> None:
    taken: list[CloudEvent] = []

    async def take(event: CloudEvent) -> None:
        taken.append(event)
        if len(taken) < 3:
            raise BackendUnavailable("not yet")

    app = FastAPI()
    app.include_router(event_router(take))
    async with serving(app) as url:
        settings = {**wheel.hub.settings.model_dump(), "EVENTS_NATS_URL": None, "K_SINK": url}
        wheel.hub.settings = Settings(**settings)
        event = an_event()
        async with wheel.hub.bridge(), wheel.north.bridge():
            await wheel.north.log.append([event])
            await eventually(lambda: len(taken) == 3)
            await wheel.settled()
    assert {one.id for one in taken} == {event.id}
    assert taken[0].extensions["bridgeorigin"] == "north"

"""Two whole stacks, a hub and an edge, joined by their event bridges: what happens at the edge is known at the hub."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import nats
import pytest
from pydicom.uid import generate_uid

from imaging_services.local.readiness import http_status
from support.dicom_files import DicomFile
from support.instances import EXPLICIT, encoded, instance
from support.ports import a_free_port
from support.senders import send_undecoded
from support.servers import running_nats
from support.site import write_locations
from support.stack import Stack, imaging_up
from support.webhook import Webhook, wait_until

pytestmark = pytest.mark.timeout(300)

IMAGING = str(Path(sys.executable).with_name("imaging"))
ONE_OF_EACH = Counter({"ImageStoredEvent": 1, "DicomAvailableEvent": 1, "StudyRevisionEvent": 1})


@dataclass(frozen=True)
class Wheel:
    """A hub that takes what its edge ``north`` tells, over a NATS server of their own."""

    hub: Stack
    edge: Stack
    told_by_hub: Webhook
    told_by_edge: Webhook
    folder: Path
    nats_url: str

    def bridge(self, name: str) -> "Bridge":
        """The bridge of ``hub`` or ``north``, not yet running."""
        stack = self.hub if name == "hub" else self.edge
        port = a_free_port()
        locations = write_locations(self.folder / "locations.json", **{"North Clinic": "north"})
        role = {"BRIDGE_ROLE": "hub", "EDGE_LOCATION_CONFIG": str(locations)}
        if name != "hub":
            role = {"BRIDGE_ROLE": "edge", "EDGE_MAILBOX_ID": name}
        environment = {
            "NATS_URL": self.nats_url,
            "EVENTS_NATS_URL": str(stack.ready["nats"]),
            "HTTP_PORT": "0",
            "HEALTH_PORT": str(port),
            **role,
        }
        return Bridge(self.folder / f"{name}.log", environment, port)


@dataclass(frozen=True)
class Bridge:
    """``imaging run event-bridge`` as a process."""

    log: Path
    environment: dict[str, str]
    health: int

    @contextmanager
    def running(self) -> Iterator[None]:
        """Ready in the block; told to stop and waited for at its end."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [IMAGING, "run", "event-bridge"], env=os.environ | self.environment, stdout=log, stderr=log
            )
        try:
            wait_until(lambda: process.poll() is not None or self._is_ready(), 30)
            assert process.poll() is None, self.log.read_text()
            yield
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0, self.log.read_text()
        finally:
            process.kill()
            process.wait()

    def _is_ready(self) -> bool:
        return http_status(self.health, "/readyz") == 200


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wheel]:
    folder = tmp_path_factory.mktemp("wheel")
    with ExitStack() as stack:
        shared = stack.enter_context(running_nats(folder / "nats"))
        hooks = [stack.enter_context(Webhook()) for _ in range(2)]
        stacks = []
        for name, hook in zip(("hub", "edge"), hooks, strict=True):
            (folder / name).mkdir()
            options = ("--name", name, "--study-binding", hook.url, "--revisioning-delay", "1")
            stacks.append(stack.enter_context(imaging_up(folder / name, *options)))
        yield Wheel(stacks[0], stacks[1], hooks[0], hooks[1], folder, shared.url)


async def test_an_instance_sent_at_the_edge_is_announced_once_on_either_side(wheel: Wheel, tmp_path: Path) -> None:
    with wheel.bridge("hub").running(), wheel.bridge("north").running():
        study = await send(wheel.edge, tmp_path)
        await asyncio.to_thread(wait_until, lambda: revisions(wheel.told_by_edge, study) == 1)
        await asyncio.to_thread(wait_until, lambda: revisions(wheel.told_by_hub, study) >= 1)
        await settled(wheel)
        assert await events_of(wheel.hub, study) == ONE_OF_EACH
        assert revisions(wheel.told_by_hub, study) == 1
        # Nothing has come back to where it began; the hub's own revision of the study came, and was left out.
        assert await delivered_to(wheel, "north") <= 1
        assert await events_of(wheel.edge, study) == ONE_OF_EACH
        assert revisions(wheel.told_by_edge, study) == 1


async def test_what_happens_while_the_edges_bridge_is_away_arrives_when_it_is_back(
    wheel: Wheel, tmp_path: Path
) -> None:
    north = wheel.bridge("north")
    with wheel.bridge("hub").running():
        studies = [await send(wheel.edge, tmp_path) for _ in range(3)]
        await asyncio.to_thread(wait_until, lambda: all(revisions(wheel.told_by_edge, one) for one in studies))
        assert [await events_of(wheel.hub, one) for one in studies] == [Counter()] * 3
        with north.running():
            await asyncio.to_thread(wait_until, lambda: all(revisions(wheel.told_by_hub, one) for one in studies))
            await settled(wheel)
        assert [await events_of(wheel.hub, one) for one in studies] == [ONE_OF_EACH] * 3
        assert [await events_of(wheel.edge, one) for one in studies] == [ONE_OF_EACH] * 3


async def test_the_hubs_own_instance_reaches_the_edge_once(wheel: Wheel, tmp_path: Path) -> None:
    with wheel.bridge("hub").running(), wheel.bridge("north").running():
        study = await send(wheel.hub, tmp_path)
        await asyncio.to_thread(wait_until, lambda: revisions(wheel.told_by_edge, study) >= 1)
        await asyncio.to_thread(wait_until, lambda: revisions(wheel.told_by_hub, study) >= 1)
        await settled(wheel)
        assert await events_of(wheel.edge, study) == ONE_OF_EACH
        assert await events_of(wheel.hub, study) == ONE_OF_EACH


async def send(stack: Stack, folder: Path) -> str:
    """A new instance of a new study, through the proxy; its Study Instance UID."""
    study = generate_uid()
    data_set = instance(StudyInstanceUID=study)
    uids = (data_set.SOPClassUID, data_set.SOPInstanceUID, study, data_set.SeriesInstanceUID)
    file = DicomFile(folder / "sent.dcm", *map(str, uids), EXPLICIT, encoded(data_set))
    statuses = await asyncio.to_thread(send_undecoded, [file], stack.ready["dimse_proxy"], folder)
    assert set(statuses.values()) == {0}
    return str(study)


def revisions(hook: Webhook, study: str) -> int:
    """How often the webhook was told of the study."""
    return sum(event["data"]["study"]["studyInstanceUID"] == study for event in hook.events)


async def events_of(stack: Stack, study: str) -> Counter[str]:
    """How often each type of event about the study is in a stack's event log."""
    client = await nats.connect(stack.ready["nats"])
    found: Counter[str] = Counter()
    try:
        context = client.jetstream()
        state = (await context.stream_info("imaging-events")).state
        for sequence in range(state.first_seq, state.last_seq + 1):
            message = await context.get_msg("imaging-events", sequence)
            if study in json.dumps(json.loads(message.data or b"{}")):
                found[(message.headers or {})["ce-type"]] += 1
    finally:
        await client.close()
    return found


async def delivered_to(wheel: Wheel, mailbox: str) -> int:
    """How many messages the owner of a mailbox was given so far."""
    client = await nats.connect(wheel.nats_url)
    try:
        return int((await client.jetstream().consumer_info("events", mailbox)).delivered.consumer_seq)
    finally:
        await client.close()


async def settled(wheel: Wheel) -> None:
    """Wait until neither log grows any more: twice the quiet time of a study, and every mailbox is empty."""
    before, since = await sizes(wheel), time.monotonic()
    async with asyncio.timeout(60):
        while time.monotonic() - since < 2.5:
            await asyncio.sleep(0.2)
            if (now := await sizes(wheel)) != before:
                before, since = now, time.monotonic()


async def sizes(wheel: Wheel) -> list[int]:
    places = [(wheel.hub.ready["nats"], "imaging-events"), (wheel.edge.ready["nats"], "imaging-events")]
    places.append((wheel.nats_url, "events"))
    found = []
    for url, stream in places:
        client = await nats.connect(url)
        try:
            state = (await client.jetstream().stream_info(stream)).state
            found += [state.last_seq, state.messages]
        finally:
            await client.close()
    return found

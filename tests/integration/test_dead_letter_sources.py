"""``imaging dead-letters`` and ``redrive`` over every source: event log, DIMSE relay and the bridge's mailboxes."""

import asyncio
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from imaging_services.adapters.nats.connection import connect
from imaging_services.adapters.nats.mailbox import JetStreamMailboxes
from imaging_services.adapters.nats.relay_dead_letters import list_relay_dead_letters
from imaging_services.adapters.nats.settings import NatsSettings
from imaging_services.domain.dicom.dimse import StoreAnswer
from imaging_services.domain.errors import Refused, Superseded
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.relay.messages import StoreMessage
from imaging_services.domain.relay.ports import DataSource
from support.events import an_event, eventually, in_background
from support.relay import Remembering, blocks, call, listening, nats_relay, relay_settings
from support.servers import Nats

IMAGING = str(Path(sys.executable).with_name("imaging"))


@pytest.fixture
def root() -> str:
    return f"letters-{uuid.uuid4().hex}"


async def imaging(*arguments: str, **environment: str) -> str:
    """The output of a command that succeeds."""
    process = await asyncio.create_subprocess_exec(
        IMAGING,
        *arguments,
        env={"PATH": "/usr/bin:/bin", **environment},
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, output + errors
    return output.decode()


async def listed(*arguments: str, **environment: str) -> list[dict[str, Any]]:
    lines = (await imaging("dead-letters", "--json", *arguments, **environment)).splitlines()
    return [json.loads(line) for line in lines]


async def test_a_mailboxs_dead_letter_is_listed_and_handed_in_again(nats_server: Nats, root: str) -> None:
    environment = {"NATS_URL": nats_server.url, "NATS_SUBJECT_ROOT": root}
    event, refusing, got = an_event(), True, []

    async def hand_in(one: CloudEvent) -> None:
        if refusing:
            raise Refused("the processor said no")
        got.append(one.id)

    async with connect(NatsSettings(url=nats_server.url)) as client:
        mailboxes = JetStreamMailboxes(client, root)
        await mailboxes.prepare(["north"])
        async with in_background(mailboxes.consume("north", hand_in)):
            await mailboxes.post("north", event)
            async with asyncio.timeout(60):
                while not [letter async for letter in mailboxes.dead_letters()]:
                    await asyncio.sleep(0.05)
            (letter,) = await listed(**environment)
            assert (letter["consumer"], letter["tries"]) == ("mailbox-north", 1)
            assert event.id in letter["what"]
            assert "the processor said no" in letter["reason"]
            assert await listed("--consumer", "mailbox-south", **environment) == []
            assert await listed("--consumer", "pacs", **environment) == []

            refusing = False
            assert await imaging("redrive", "--consumer", "mailbox-south", **environment) == "0 put back\n"
            assert await imaging("redrive", "--consumer", "mailbox-north", **environment) == "1 put back\n"
            await eventually(lambda: got == [event.id])
    assert await listed(**environment) == []


async def test_a_relays_dead_letter_is_listed_and_stored_after_all(nats_server: Nats, root: str) -> None:
    environment = {"DIMSE_NATS_URL": nats_server.url, "DIMSE_NATS_SUBJECT_ROOT": root}
    handler = Remembering(answers=lambda _, tries: StoreAnswer(0xA900 if tries == 1 else 0, "series of another"))
    store = call()
    settings = NatsSettings(url=nats_server.url)
    async with (
        nats_relay(relay_settings(nats_server.url, "A", root)) as proxy,
        nats_relay(relay_settings(nats_server.url, "B", root)) as ingestion,
        connect(settings) as client,
        listening(ingestion, handler),
    ):
        await proxy.store_durably(store, blocks(b"x" * 1000))
        async with asyncio.timeout(60):
            while not [letter async for letter in list_relay_dead_letters(client, root, "B")]:
                await asyncio.sleep(0.05)
        (letter,) = await listed(**environment)
        assert letter["consumer"] == "relay-B"
        assert str(store.command.sop_instance_uid) in letter["what"]
        assert await listed("--consumer", "relay-A", **environment) == []
        assert await imaging("redrive", "--consumer", "relay-B", **environment) == "1 put back\n"
        await eventually(lambda: len(handler.stored) == 1)
    assert await listed(**environment) == []


async def test_a_redrive_says_how_many_superseded_versions_it_left_out(nats_server: Nats, root: str) -> None:
    environment = {"DIMSE_NATS_URL": nats_server.url, "DIMSE_NATS_SUBJECT_ROOT": root}

    class Newer(Remembering):
        async def store(self, message: StoreMessage, data: DataSource) -> StoreAnswer:
            raise Superseded("a version accepted later is there already")

    async with (
        nats_relay(relay_settings(nats_server.url, "A", root)) as proxy,
        nats_relay(relay_settings(nats_server.url, "B", root)) as ingestion,
        connect(NatsSettings(url=nats_server.url)) as client,
        listening(ingestion, Newer()),
    ):
        await proxy.store_durably(call(), blocks(b"old"))
        async with asyncio.timeout(60):
            while not [letter async for letter in list_relay_dead_letters(client, root, "B")]:
                await asyncio.sleep(0.05)
        (letter,) = await listed(**environment)
        assert "Superseded" in letter["reason"]
        printed = await imaging("redrive", **environment)
        assert printed.startswith("0 put back\n1 superseded version left out")
        assert json.loads(await imaging("redrive", "--json", **environment)) == {"redriven": 0, "superseded": 1}
        named = ("--consumer", "relay-B", "--sequence", str(letter["sequence"]))
        assert await imaging("redrive", *named, **environment) == "1 put back\n"


async def test_every_source_is_read_by_one_command(nats_server: Nats, root: str) -> None:
    """Where one server carries all three, they are told apart by their consumers' names."""
    url = nats_server.url
    environment = {"EVENTS_NATS_URL": url, "EVENTS_STREAM": root, "DIMSE_NATS_URL": url, "NATS_URL": url}
    environment |= {"DIMSE_NATS_SUBJECT_ROOT": f"{root}-relay", "NATS_SUBJECT_ROOT": f"{root}-bridge"}
    assert await imaging("dead-letters", **environment) == "no dead letters\n"
    assert await imaging("redrive", **environment) == "0 put back\n"

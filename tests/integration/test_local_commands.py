"""The operational commands against real servers: dead letters, redrive, doctor, send."""

import asyncio
import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from imaging_services.adapters.nats.connection import connect
from imaging_services.adapters.nats.events import JetStreamEventLog
from imaging_services.adapters.nats.settings import NatsSettings
from imaging_services.domain.errors import Refused
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.events.subjects import EventSubjects
from imaging_services.local.ports import accepts, free_ports
from support.peers import dcmtk_program
from support.servers import S3, Database, Nats

IMAGING = str(Path(sys.executable).with_name("imaging"))


def imaging(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": "/usr/bin:/bin", **environment}
    command = [IMAGING, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=clean, timeout=60, cwd="/")


async def bury(url: str, stream: str, consumer: str) -> CloudEvent:
    """An event that the consumer refuses for good."""
    event = CloudEvent(type="DicomAvailableEvent", source="test", id=str(uuid.uuid4()), data=b"{}")
    async with connect(NatsSettings(url=url)) as client:
        event_log = JetStreamEventLog(client, EventSubjects("imaging", stream))

        async def refuse(_: CloudEvent) -> None:
            raise Refused("the target said no")

        consuming = asyncio.create_task(event_log.consume(consumer, frozenset({event.type}), refuse))
        await event_log.append([event])
        async with asyncio.timeout(60):
            while not [letter async for letter in event_log.dead_letters()]:
                await asyncio.sleep(0.05)
        consuming.cancel()
        await asyncio.wait({consuming})
    return event


async def test_dead_letters_are_listed_and_put_back(nats_server: Nats) -> None:
    stream = f"cli{uuid.uuid4().hex[:8]}"
    event = await bury(nats_server.url, stream, "pacs")
    environment = {"EVENTS_NATS_URL": nats_server.url, "EVENTS_STREAM": stream}
    listed = await asyncio.to_thread(imaging, "dead-letters", "--json", **environment)
    [letter] = [json.loads(line) for line in listed.stdout.splitlines()]
    assert (letter["consumer"], letter["tries"]) == ("pacs", 1)
    assert event.id in letter["what"]
    assert "the target said no" in letter["reason"]
    table = await asyncio.to_thread(imaging, "dead-letters", "--consumer", "pacs", **environment)
    assert "the target said" in table.stdout

    other = await asyncio.to_thread(imaging, "redrive", "--consumer", "other", **environment)
    assert other.stdout == "0 put back\n"
    again = await asyncio.to_thread(
        imaging, "redrive", "--consumer", "pacs", "--sequence", str(letter["sequence"]), **environment
    )
    assert (again.returncode, again.stdout) == (0, "1 put back\n"), again.stderr
    empty = await asyncio.to_thread(imaging, "dead-letters", **environment)
    assert empty.stdout == "no dead letters\n"


def test_a_sequence_without_its_consumer_is_refused(nats_server: Nats) -> None:
    done = imaging("redrive", "--sequence", "1", EVENTS_NATS_URL=nats_server.url)
    assert done.returncode == 2
    assert "--sequence needs --consumer" in done.stderr


def test_doctor_of_the_environment(
    nats_server: Nats, database: Database, s3_server: S3, bucket: str, tmp_path: Path
) -> None:
    location, secret = tmp_path / "config", tmp_path / "secret"
    host, port = s3_server.endpoint.rsplit(":", 1)
    keys = {"BUCKET_HOST": host, "BUCKET_PORT": port, "BUCKET_REGION": s3_server.region, "BUCKET_NAME": bucket}
    for folder, values in (
        (location, keys),
        (secret, {"AWS_ACCESS_KEY_ID": s3_server.access_key_id, "AWS_SECRET_ACCESS_KEY": s3_server.secret_access_key}),
    ):
        folder.mkdir()
        for key, value in values.items():
            (folder / key).write_text(value)
    environment = {
        "EVENTS_NATS_URL": nats_server.url,
        "DB_HOST": database.host,
        "DB_PORT": str(database.port),
        "DB_NAME": database.name,
        "DB_USER": database.user,
        "DB_PASS": database.password,
        "BUCKET_CONFIG_PATH": str(location),
        "BUCKET_SECRET_PATH": str(secret),
    }
    done = imaging("doctor", "--json", **environment)
    findings = {one["what"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert findings["events NATS"]["good"] is True
    assert findings["storage space"]["good"] is True, findings["storage space"]
    assert findings["DIMSE relay NATS"]["good"] is None
    assert findings["PostgreSQL"]["good"] is False
    assert "has no schema yet: start the event processor" in findings["PostgreSQL"]["sentence"]
    assert done.returncode == 1

    (location / "BUCKET_NAME").write_text("not-there")
    done = imaging("doctor", "--json", **environment)
    findings = {one["what"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert database.password not in done.stdout
    (secret / "AWS_SECRET_ACCESS_KEY").write_text("wrong")
    done = imaging("doctor", "--json", **environment)
    findings = {one["what"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert findings["storage space"]["good"] is False
    assert "bucket not-there at" in findings["storage space"]["sentence"]


@pytest.fixture
def storescp(tmp_path: Path):
    """DCMTK's server, writing what it receives to a folder."""
    [port], folder = free_ports(1), tmp_path / "received"
    folder.mkdir()
    command = [dcmtk_program("storescp"), "-aet", "DCMTK", "+xa", "-od", str(folder), str(port)]
    with subprocess.Popen(command, env={**os.environ, "TCP_NODELAY": "1"}) as process:
        deadline = time.monotonic() + 60
        while not accepts(port):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield port, folder
        process.terminate()


def test_send(storescp: tuple[int, Path], tmp_path: Path) -> None:
    port, received = storescp
    (tmp_path / "notes.txt").write_text("no image")
    files = [str(get_testdata_file(name)) for name in ("CT_small.dcm", "JPEG2000.dcm", "rtplan.dcm")]
    done = imaging("send", *files, str(tmp_path / "notes.txt"), "--to", f"DCMTK@127.0.0.1:{port}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 4 files are no DICOM instances" in done.stdout
    assert "3 of 3 instances stored at DCMTK" in done.stdout
    assert len(list(received.iterdir())) == 3


def test_send_says_what_it_cannot_read(storescp: tuple[int, Path]) -> None:
    port, _ = storescp
    unreadable = "/proc/self/mem"  # whoever reads it, root included: Input/output error
    done = imaging("send", str(get_testdata_file("CT_small.dcm")), unreadable, "--to", f"DCMTK@127.0.0.1:{port}")
    assert f"{unreadable} cannot be read: Input/output error" in done.stdout
    assert "1 of 1 instances stored at DCMTK" in done.stdout
    assert done.returncode != 0
    assert "1 files could not be read and were not sent" in done.stderr


def test_send_to_nobody(tmp_path: Path) -> None:
    [port] = free_ports(1)
    done = imaging("send", str(get_testdata_file("CT_small.dcm")), "--to", f"NOBODY@127.0.0.1:{port}")
    assert done.returncode == 1
    assert "no connection to 127.0.0.1" in done.stdout
    assert "1 instances were not stored" in done.stderr

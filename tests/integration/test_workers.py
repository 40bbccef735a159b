"""Several processes of one service on one port: who is killed is replaced, who is told to stop drains."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError
from pydicom.uid import generate_uid

from imaging_services.adapters.nats.connection import connect
from imaging_services.adapters.nats.settings import NatsSettings
from imaging_services.apps.dimse_proxy.main import main as proxy_main
from imaging_services.apps.dimse_proxy.settings import Settings as ProxySettings
from imaging_services.apps.event_driven_ingestion.main import main as processor_main
from imaging_services.apps.event_driven_ingestion.settings import Settings as ProcessorSettings
from imaging_services.domain.relay.subjects import RelaySubjects
from support.dcmtk import dcmtk, written
from support.instances import instance
from support.ports import a_free_port
from support.servers import Database, Nats
from support.services import running

pytestmark = pytest.mark.timeout(600)

IMAGING = str(Path(sys.executable).with_name("imaging"))
TITLE = "DIMSE_INGESTION"
_SECONDS = 120
_ACCEPTED = re.compile(r"Sending file: (\S+)\n(?:.*\n)*?.*Received Store Response \(Success\)")


@dataclass
class Service:
    """``imaging run`` with two workers, as a child process."""

    process: subprocess.Popen[bytes]
    log: Path
    health: str

    def lines(self, event: str) -> list[dict]:
        """What the parent has logged about an event."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def pid(self, worker: int) -> int:
        """The process that is this worker now."""
        return [line["pid"] for line in self.lines("worker started") if line["worker"] == worker][-1]

    async def is_ready(self) -> bool:
        try:
            async with httpx.AsyncClient() as client:
                return (await client.get(f"{self.health}/readyz", timeout=30)).status_code == 200
        except httpx.ConnectError:
            assert self.process.poll() is None, self.log.read_text()
            return False

    async def associations(self) -> dict[str, float]:
        """How many each worker has taken, as /metrics says."""
        async with httpx.AsyncClient() as client:
            page = (await client.get(f"{self.health}/metrics", timeout=30)).text
        found = re.findall(r'^imaging_dimse_associations_total\{worker="(\d)"\} (\S+)$', page, re.MULTILINE)
        return {worker: float(count) for worker, count in found}

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def imaging_run(component: str, folder: Path, environment: dict[str, str]):
    """The service as a process, with its log in a file."""
    health, log = a_free_port(), folder / "workers.log"
    variables = {**os.environ, **environment, "HEALTH_PORT": str(health), "WORKERS": "2"}
    with log.open("wb") as output:
        process = subprocess.Popen([IMAGING, "run", component], env=variables, stderr=output)
    try:
        yield Service(process, log, f"http://127.0.0.1:{health}")
    finally:
        process.kill()
        process.wait()


async def until(condition: Callable[[], object]) -> None:
    """Wait until the condition, which may be awaitable, is true."""
    async with asyncio.timeout(_SECONDS):
        while True:
            found = condition()
            if (await found) if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.05)


@dataclass
class Ingestion:
    """The service with the processor behind it."""

    service: Service
    port: int
    database: Database

    def stored(self) -> set[str]:
        with psycopg.connect(self.database.conninfo) as connection:
            return {row[0] for row in connection.execute("SELECT sop_instance_uid FROM dicom_instance").fetchall()}

    async def echo(self) -> int:
        code, _ = await dcmtk("echoscu", "127.0.0.1", str(self.port), title=TITLE)
        return code

    async def sender(self, paths: Sequence[Path], output: Path) -> asyncio.subprocess.Process:
        """A storescu that has begun; what it says goes to a file."""
        with output.open("wb") as said:
            return await asyncio.create_subprocess_exec(
                *("/usr/bin/storescu", "-v", "-aec", TITLE, "127.0.0.1", str(self.port), *map(str, paths)),
                stdout=said,
                stderr=said,
            )


@asynccontextmanager
async def two_workers(folder: Path, nats: Nats, database: Database) -> AsyncIterator[Ingestion]:
    """A DIMSE ingestion of two workers that is ready."""
    root, port = f"t{uuid.uuid4().hex}", a_free_port()
    for name in ("objects", "keys", "spool"):
        (folder / name).mkdir()
    (folder / "keys" / "LOCAL_STORAGE_PATH").write_text(str(folder / "objects"))
    events = {"EVENTS_NATS_URL": nats.url, "EVENTS_NATS_SUBJECT_ROOT": root, "EVENTS_STREAM": root}
    fields = {name: str(getattr(database, name)) for name in ("host", "port", "name", "user")}
    db = {**{f"DB_{name.upper()}": value for name, value in fields.items()}, "DB_PASS": database.password}
    environment = {
        **events,
        **db,
        "DIMSE_HOST": "127.0.0.1",
        "DIMSE_PORT": str(port),
        "DIMSE_NATS_URL": nats.url,
        "DIMSE_NATS_SUBJECT_ROOT": root,
        "PROVIDER_NAME": "space",
        "BUCKET_CONFIG_PATH": str(folder / "keys"),
        "SPOOL_DIR": str(folder / "spool"),
        "DRAIN_SECONDS": "90",
    }
    processor = ProcessorSettings(**events, **db, HTTP_PORT=a_free_port())
    async with running(processor_main, processor):
        with imaging_run("dimse-ingestion", folder, environment) as service:
            await until(service.is_ready)
            yield Ingestion(service, port, database)


def files(folder: Path, count: int) -> dict[str, Path]:
    """Instances of one study, by SOP Instance UID."""
    folder.mkdir()
    study, series = generate_uid(), generate_uid()
    made = [instance(StudyInstanceUID=study, SeriesInstanceUID=series, InstanceNumber=one) for one in range(count)]
    return {one.SOPInstanceUID: written(folder / f"{number}.dcm", one) for number, one in enumerate(made)}


async def test_a_worker_is_killed_and_all_are_told_to_stop(
    nats_server: Nats, database: Database, tmp_path: Path
) -> None:
    async with two_workers(tmp_path, nats_server, database) as ingestion:
        await _both_take_associations(ingestion)
        await _one_is_killed_while_it_receives(ingestion, tmp_path)
        await _all_drain(ingestion, tmp_path)


async def _both_take_associations(ingestion: Ingestion) -> None:
    for tried in range(1, 61):
        assert await ingestion.echo() == 0
        taken = await ingestion.service.associations()
        assert sum(taken.values()) == tried
        if set(taken) == {"1", "2"} and all(taken.values()):
            return
    raise AssertionError(f"only one of the workers is called: {taken}")


async def _one_is_killed_while_it_receives(ingestion: Ingestion, folder: Path) -> None:
    service, sent, said = ingestion.service, files(folder / "first", 150), folder / "first.log"
    before = await service.associations()
    sender = await ingestion.sender(list(sent.values()), said)
    await until(lambda: said.read_text().count("Response (Success)") > 3)
    after = await service.associations()
    (worker,) = (int(name) for name in after if after[name] > before[name])
    os.kill(service.pid(worker), signal.SIGKILL)
    assert await asyncio.wait_for(sender.wait(), _SECONDS) != 0
    accepted = {uid for uid, path in sent.items() if str(path) in _ACCEPTED.findall(said.read_text())}
    assert 3 < len(accepted) < len(sent)
    assert accepted <= ingestion.stored()
    await until(lambda: service.lines("a worker has ended and is started again"))
    assert await ingestion.echo() == 0  # the other one answers
    await until(service.is_ready)
    assert len([line for line in service.lines("worker started") if line["worker"] == worker]) == 2
    again = await ingestion.sender(list(sent.values()), said)
    assert await asyncio.wait_for(again.wait(), _SECONDS) == 0
    assert set(sent) == ingestion.stored()


async def _all_drain(ingestion: Ingestion, folder: Path) -> None:
    service, sent, senders = ingestion.service, set[str](), list[asyncio.subprocess.Process]()
    before = taken = await service.associations()
    while len(senders) < 2 or any(taken[worker] == before[worker] for worker in taken):
        some = files(folder / f"more-{len(senders)}", 30)
        senders.append(await ingestion.sender(list(some.values()), folder / f"more-{len(senders)}.log"))
        sent |= set(some)
        await until(lambda: _begun(folder, len(senders)))
        taken = await service.associations()
        assert len(senders) < 60
    service.stop()
    assert {await asyncio.wait_for(sender.wait(), _SECONDS) for sender in senders} == {0}
    assert await asyncio.to_thread(service.process.wait, _SECONDS) == 0
    assert sent <= ingestion.stored()
    assert await ingestion.echo() != 0


def _begun(folder: Path, count: int) -> bool:
    """Every sender has an association."""
    return all("Association Accepted" in (folder / f"more-{one}.log").read_text() for one in range(count))


async def test_one_of_several_proxies_delivers(nats_server: Nats) -> None:
    """It alone knows the order of an instance's versions."""
    root, port = f"t{uuid.uuid4().hex}", a_free_port()
    settings = ProxySettings(
        DIMSE_NATS_URL=nats_server.url,
        DIMSE_NATS_SUBJECT_ROOT=root,
        DIMSE_HOST="127.0.0.1",
        DIMSE_PORT=port,
        DIMSE_TARGET_HOST="127.0.0.1",
        DIMSE_TARGET_PORT=1,
    )
    queue = RelaySubjects(root, "A").stream
    async with connect(NatsSettings(url=nats_server.url)) as client, running(proxy_main, settings, worker=2):
        js = client.jetstream()
        with pytest.raises(NotFoundError):
            await js.stream_info(queue)
        async with running(proxy_main, settings, worker=1):  # on the same port
            await until(lambda: _exists_in(js, queue))


async def _exists_in(js: JetStreamContext, stream: str) -> bool:
    try:
        return bool(await js.stream_info(stream))
    except NotFoundError:
        return False


def _dicomweb(folder: Path, **more: str) -> dict[str, str]:
    (folder / "objects").mkdir()
    (folder / "keys").mkdir()
    (folder / "keys" / "LOCAL_STORAGE_PATH").write_text(str(folder / "objects"))
    return {**_dicomweb_of(folder), "HTTP_PORT": "0", **more}


async def test_any_free_port_is_the_same_for_all_and_nobody_elses(tmp_path: Path) -> None:
    with imaging_run("dicomweb-ingestion", tmp_path, _dicomweb(tmp_path)) as service:
        await until(service.is_ready)
        ports = [line["port"] for line in service.lines("dicomweb listens")]
        assert len(ports) == 2
        assert len(set(ports)) == 1
        async with httpx.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{ports[0]}/nothing-here")).status_code == 404
        environment = {**os.environ, **_dicomweb_of(tmp_path), "HTTP_PORT": str(ports[0]), "WORKERS": "2"}
        other = await asyncio.to_thread(
            subprocess.run, [IMAGING, "run", "dicomweb-ingestion"], env=environment, capture_output=True, text=True
        )
        assert (other.returncode, other.stderr.count("cannot listen on 127.0.0.1 port")) == (2, 1)
        service.process.kill()  # its workers do not keep the port from whoever comes next
        await until(lambda: not any(_exists(service.pid(worker)) for worker in (1, 2)))


async def test_a_wrong_setting_is_said_once(tmp_path: Path) -> None:
    environment = _dicomweb(tmp_path, QUERY_DEFAULT_LIMIT="9999")
    with imaging_run("dicomweb-ingestion", tmp_path, environment) as service:
        assert await asyncio.to_thread(service.process.wait, _SECONDS) == 2
    assert service.log.read_text().count("QUERY_DEFAULT_LIMIT is larger than QUERY_MAX_LIMIT") == 1


def _dicomweb_of(folder: Path) -> dict[str, str]:
    return {"BUCKET_CONFIG_PATH": str(folder / "keys"), "DICOMWEB_ROLE": "stow", "K_SINK": "http://127.0.0.1:9"}


def _exists(pid: int) -> bool:
    """Not a zombie either, which a parent that was killed leaves to whoever reaps it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

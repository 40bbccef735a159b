"""How many instances a second the manifest records: events through ``BatchRecorder``, from as many callers as the event
processor has when it is busy, by one process and by two at a time."""

import asyncio
import gc
import hashlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import structlog
from measure import cpu_seconds
from pydicom import dcmread
from pydicom.data import get_testdata_file

from imaging_services.adapters.postgres.manifest import PostgresManifest
from imaging_services.domain.dicom.part10 import read_file_head
from imaging_services.domain.events.envelope import CloudEvent
from imaging_services.domain.ingest.announcement import Provenance, StoredObject, image_stored
from imaging_services.domain.ingest.heading import take_heading
from imaging_services.wiring.record import BatchRecorder
from support.manifests import migrated_pool
from support.servers import Database, fresh_database, running_postgres

BATCH = 500
BATCHES = 10
INSTANCES_OF_A_STUDY = 250
_HERE = Path(__file__).parent
# Values that differ from image to image: times, positions, table, tube current, exposure, Instance Number.
_VARYING = (b"113008", b"112936", b"072731", b"-75.699997", b"-77.2040634155", b"-320.197968", b"178.079926")
_VARYING += (b"3994.299316", b"-718.079956", b"IS\x04\x00170", b"\x20\x00\x13\x00IS\x02\x001 ")


def report(folder: Path) -> dict[str, float]:
    """Print the rates; instances a second by name."""
    folder.mkdir(parents=True)
    with running_postgres(folder) as server:
        rates = {}
        for processes in (1, 2):
            with fresh_database(server) as database:
                asyncio.run(_prepared(database))
                before = cpu_seconds([server.pid])
                rate, own = _rate(database, processes)
                spent = (cpu_seconds([server.pid]) - before) / (processes * BATCH * BATCHES) * 1e3
                name = f"manifest recording: instances/s, {processes} process{'es' if processes > 1 else ''}"
                print(f"{name}: {rate:.0f}; CPU ms an instance: {own:.2f} of the recorder, {spent:.2f} of PostgreSQL")
                rates[name] = rate
    return rates


async def _prepared(database: Database) -> None:
    async with migrated_pool(database):
        return


def _rate(database: Database, processes: int) -> tuple[float, float]:
    """All begin when all have their events ready; CPU milliseconds an instance of the recorders."""
    address = [database.host, str(database.port), database.user, database.password, database.name]
    recorders = [
        subprocess.Popen(
            [sys.executable, str(_HERE / "recording.py"), *address, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    for one in recorders:
        assert one.stdout is not None
        one.stdout.readline()
    start = time.perf_counter()
    for one in recorders:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    spent = [float(one.communicate(timeout=300)[0]) for one in recorders]
    seconds = time.perf_counter() - start
    count = processes * BATCH * BATCHES
    return count / seconds, sum(spent) / count * 1e3


async def _record(database: Database, number: int) -> None:
    events = await made(BATCH * BATCHES, f"1.2.826.7.{number}")
    async with migrated_pool(database) as pool:
        manifest = PostgresManifest(pool, "bench")
        await manifest.record(await made(1, f"1.2.826.8.{number}"))
        gc.freeze()  # as every service does at its start
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        before = time.process_time()
        await _all(events, manifest)
        print(time.process_time() - before, flush=True)


async def _all(events: list[CloudEvent], manifest: PostgresManifest) -> None:
    recorder = BatchRecorder(
        manifest, asyncio.Event(), batch_size=BATCH, queue_size=10 * BATCH, queue_bytes=128 * 1024 * 1024
    )
    waiting = iter(events)

    async def caller() -> None:
        for event in waiting:
            await recorder.record(event)

    async with asyncio.TaskGroup() as tasks:
        recording = tasks.create_task(recorder.run())
        callers = [tasks.create_task(caller()) for _ in range(2 * BATCH)]
        await asyncio.gather(*callers)
        await recorder.close()
        await recording


async def made(count: int, root: str) -> list[CloudEvent]:
    """Events of CT instances that never were, below this UID root."""
    path = get_testdata_file("CT_small.dcm")
    content, dataset = Path(str(path)).read_bytes(), dcmread(str(path))
    head = read_file_head(content, ended=True)
    assert head is not None
    space = Provenance("bench", "bench", "images", "http://bench/wado-rs", "http://bench/wado-rs")
    events = []
    for number in range(count):
        study = f"{root}.{number // INSTANCES_OF_A_STUDY}"
        data = content[head.data_set :]
        for old, new in (
            (dataset.SOPInstanceUID, f"{study}.1.{number}"),
            (dataset.SeriesInstanceUID, f"{study}.1"),
            (dataset.StudyInstanceUID, study),
        ):
            data = data.replace(_padded(old, len(old)), _padded(new, len(old)))
        for value in _VARYING:
            data = data.replace(value, value[:-2] + b"%02d" % (number % 60))
        heading = await take_heading(_blocks(data), dataset.file_meta.TransferSyntaxUID)
        digest = hashlib.sha256(heading.sop_instance_uid.encode()).hexdigest()
        events.append(image_stored(StoredObject(f"{digest}.dcm", 525_000, digest), heading, space))
    return events


def _padded(uid: str, length: int) -> bytes:
    return uid.encode().ljust(length + length % 2, b"\0")


async def _blocks(data: bytes) -> AsyncIterator[bytes]:
    yield data


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    host, port, user, password, name, own = sys.argv[1:]
    asyncio.run(_record(Database(host, int(port), user, password, name), int(own)))

"""Mixed load at a steady rate: nothing grows that should not. For half an hour (make soak) memory and latency are flat,
too; half a minute, which is what make test takes, is too short to tell."""

import asyncio
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest
from nats.aio.client import Client

from support.audit import audit, until_settled
from support.chaos import LONG, Studies, WiredStack, chaos
from support.chaos_summary import SERVERS, Record, Summary
from support.insisting import Identity, Modality, StowClient, identity, of_size
from support.instances import instance
from support.memory import MemoryWatch

MINUTES = float(os.environ.get("SOAK_MINUTES") or (30 if LONG else 0.5))
RATE = 2.0  # instances a second and sender
LARGE_EVERY = 60
KEPT = 200  # of each sender's instances are compared at the end; of the others only the identity is remembered
# What a site's images make grow. The tombstones of associations go after a day.
MAY_GROW = {
    "dicom_study",
    "dicom_series",
    "dicom_instance",
    "dicom_study_provider",
    "provider",
    "instance_header",
    "association",
}
STREAMS_THAT_MAY_GROW = ("-events",)  # by time and size limits
OUTBOX_BYTES = 64 << 20  # what an empty table may take on disk before it is vacuumed
pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(int(MINUTES * 60 + 900)),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@dataclass
class Waits:
    """Seconds that each operation of one kind took, in the order of their ends."""

    name: str
    seconds: list[float] = field(default_factory=list)

    def run(self, work: Callable[[], object]) -> None:
        """Do it and note how long it took."""
        begun = time.monotonic()
        work()
        self.seconds.append(time.monotonic() - begun)

    def medians(self) -> tuple[float, float]:
        """Of the second and of the last quarter: the first is for warming up."""
        quarter = len(self.seconds) // 4
        assert quarter >= 5, f"{self.name}: only {len(self.seconds)} in {MINUTES:g} minutes"
        return statistics.median(self.seconds[quarter : 2 * quarter]), statistics.median(self.seconds[-quarter:])


def test_a_steady_load_leaves_nothing_behind(tmp_path: Path, summary: Summary) -> None:
    record = Record(f"soak, {MINUTES:g} minutes")
    with (
        chaos(tmp_path, summary) as whole,
        summary.about(record),
        MemoryWatch(lambda: whole.stack.ready["pids"]) as rss,
    ):
        sizes = table_sizes(whole.stack)
        with steady_load(whole.stack) as (clients, waits):
            time.sleep(MINUTES * 60)
        until_settled(whole.stack, 120)
        record.acknowledged = {name: len(client.acknowledged) for name, client in clients.items()}
        record.longest_wait = round(max(client.longest for client in clients.values()), 2)
        record.peak_memory = rss.peaks()
        if LONG:
            record.figures = {
                "latency, s": {one.name: [round(median, 3) for median in one.medians()] for one in waits},
                "resident memory, MiB": {name: [round(m) for m in pair] for name, pair in rss.trend().items()},
            }
        acknowledged = {one: content for client in clients.values() for one, content in client.acknowledged.items()}
        compared = {one: content for one, content in acknowledged.items() if content}
        audit(whole.stack, compared, whole.subscribers, retrieved=40, seconds=120)
        nothing_grew(whole.stack, sizes)
        rss.assert_bounded()
        if LONG:
            assert {one.name: pair for one in waits if (pair := one.medians())[1] > 1.5 * pair[0] + 0.05} == {}
            assert {name: pair for name, pair in rss.trend().items() if pair[1] > flat(name, pair[0])} == {}


def flat(name: str, before: float) -> float:
    """What may be resident later, MiB; the servers keep garbage up to a limit of their own."""
    return 1.25 * before + 48 if name in SERVERS else 1.1 * before + 8


Clients = dict[str, Modality | StowClient]


@contextmanager
def steady_load(stack: WiredStack) -> Iterator[tuple[Clients, list[Waits]]]:
    """Senders by every way, and readers, each at its rate."""
    enough, studies = threading.Event(), Studies()
    clients: Clients = {name: Modality(stack, name, 30) for name in ("dimse_proxy", "dimse_ingestion")}
    clients["stow"] = StowClient(stack, 30)
    waits = {name: Waits(name) for name in (*clients, "qido", "wado")}
    recent: list[Identity] = []

    def send(name: str) -> None:
        client, number = clients[name], 0
        while not enough.wait(1 / RATE):
            number += 1
            one = of_size(9 << 20, **studies()) if number % LARGE_EVERY == 0 else instance(**studies())
            waits[name].run(lambda one=one: client.deliver(one))
            recent[:] = [*recent[-20:], identity(one)]
            if number % 12 == 0:
                client.release()
            if number > KEPT:
                client.acknowledged[identity(one)] = b""

    def read() -> None:
        with httpx.Client(timeout=30) as http:
            while not enough.wait(1 / RATE):
                if len(recent) > 10:
                    study, series, sop = recent[0]
                    waits["qido"].run(
                        lambda study=study: ask(http, f"{stack.url('dicomweb')}/studies/{study}/instances")
                    )
                    place = f"{stack.url('wado')}/studies/{study}/series/{series}/instances/{sop}"
                    waits["wado"].run(lambda place=place: ask(http, place))

    with ThreadPoolExecutor(len(clients) + 1) as threads:
        working = [threads.submit(send, name) for name in clients] + [threads.submit(read)]
        try:
            yield clients, list(waits.values())
        finally:
            enough.set()
        for one in working:
            one.result()
        for client in clients.values():
            client.__exit__()


def ask(http: httpx.Client, url: str) -> None:
    """An instance that waits in the relay is not there yet."""
    accept = 'application/dicom+json, multipart/related; type="application/dicom"'
    assert http.get(url, headers={"Accept": accept}).status_code in (200, 204, 404)


def table_sizes(stack: WiredStack) -> dict[str, int]:
    """Rows of each table."""
    with psycopg.connect(stack.ready["postgres"], connect_timeout=5) as database:
        names = database.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        rows = {name: database.execute(f"SELECT count(*) FROM {name}").fetchone() for (name,) in names}
    return {name: int(row[0]) for name, row in rows.items() if row}


def nothing_grew(stack: WiredStack, before: dict[str, int]) -> None:
    """But what a site's images make grow."""
    after = table_sizes(stack)
    assert {name: count for name, count in after.items() if name not in MAY_GROW and count > before[name]} == {}
    with psycopg.connect(stack.ready["postgres"], connect_timeout=5) as database:
        (size,) = database.execute("SELECT pg_total_relation_size('outbox')").fetchone() or (0,)
    assert size < OUTBOX_BYTES
    held = asyncio.run(messages(stack))
    assert {name: count for name, count in held.items() if count and not name.endswith(STREAMS_THAT_MAY_GROW)} == {}


async def messages(stack: WiredStack) -> dict[str, int]:
    """By stream; buckets are streams too."""
    client = Client()
    await client.connect(stack.ready["nats"])
    try:
        return {one.config.name: one.state.messages for one in await client.jetstream().streams_info()}
    finally:
        await client.close()

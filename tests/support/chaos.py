"""A whole installation whose connections, servers and subscribers can be made to fail, senders to it, and the audit."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from pydicom.uid import generate_uid

from support.audit import audit, manifest_rows, until
from support.chaos_summary import Record, Summary
from support.faulty_subscribers import FaultySubscribers, faulty_subscribers
from support.insisting import Identity, Modality, StowClient, streaming
from support.memory import MemoryWatch
from support.ports import a_free_port
from support.stack import Stack, imaging_up
from support.wires import Wire

LONG = os.environ.get("CHAOS") == "long"
PACE = 0.05 if LONG else 0.15  # seconds between the instances of one sender
RETRIEVED = 40 if LONG else 12  # instances that are compared by WADO-RS too
QUIET = 2  # seconds, --revisioning-delay
TWINS = ("event-processor", "dimse-ingestion")
# What is lost with a process or a connection is given to the next one within seconds, so that a case ends soon. An
# event is tried for some five seconds before it is a dead letter.
HURRY = {
    "STUDY_AGGREGATION_SCHEDULE": "500ms",
    "DIMSE_ASSOCIATION_LEASE_SECONDS": "8",
    "DIMSE_ACK_WAIT_SECONDS": "4",
    "DIMSE_NATS_REPLY_TIMEOUTSECONDS": "8",
    "EVENTS_SEND_TIMEOUT_SECONDS": "8",
    "EVENTS_ACK_WAIT_SECONDS": "4",
    "EVENTS_RETRY_DELAYS_SECONDS": "0.2,0.3,0.5",
    "EVENTS_MAX_TRIES": "12",
    "TARGET_TIMEOUT_SECONDS": "2",
}
_PORTS = {"nats": "nats", "wan": "nats", "postgres": "postgres", "s3": "s3"}


@dataclass
class WiredStack(Stack):
    """Its ready file also tells of the twins; ``instead`` takes the place of what it says."""

    twins: Mapping[str, int] = field(default_factory=dict)
    instead: dict[str, object] = field(default_factory=dict)

    @property
    def ready(self) -> dict[str, Any]:
        """The ready file as it is now, and more."""
        found = super().ready | self.instead
        for name, port in self.twins.items():
            key = name.replace("-", "_")
            if key in found:
                found[f"{key}_2"] = {**found[key], "port": port}
        return found


class Studies:
    """Hands out studies of ``size`` instances in two series to several senders at once."""

    def __init__(self, size: int = 16) -> None:
        self._size, self._count, self._lock = size, 0, threading.Lock()
        self._study = self._series = ""

    def __call__(self) -> dict[str, object]:
        with self._lock:
            if self._count % self._size == 0:
                self._study = generate_uid()
            if self._count % (self._size // 2) == 0:
                self._series = generate_uid()
            self._count += 1
            return {"StudyInstanceUID": self._study, "SeriesInstanceUID": self._series}


@dataclass
class Load:
    """Senders at work. ``record`` notes what is done to them meanwhile."""

    stack: Stack
    record: Record
    clients: Mapping[str, Modality | StowClient]
    sending: list["Future[None]"] = field(default_factory=list)

    @contextmanager
    def fault(self, what: str) -> Iterator[None]:
        """Note a fault that lasts as long as the block."""
        begun = time.monotonic()
        yield
        self.record.faults.append({"what": what, "seconds": round(time.monotonic() - begun, 2)})

    def goes_on(self, seconds: float = 60, *, after: bool = False) -> None:
        """Wait until each sender has had another instance acknowledged; the time is noted with the last fault when this
        is ``after`` it."""
        begun = time.monotonic()
        before = {name: len(client.acknowledged) for name, client in self.clients.items()}

        def all_went_on() -> bool:
            for one in self.sending:
                if one.done():
                    one.result()
            return all(len(client.acknowledged) > before[name] for name, client in self.clients.items())

        until(all_went_on, seconds, f"every sender goes on; faults so far: {self.record.faults}")
        if after:
            self.record.faults[-1]["went_on_after"] = round(time.monotonic() - begun, 2)

    def acknowledged(self) -> dict[Identity, bytes]:
        """By all of them."""
        return {one: content for client in self.clients.values() for one, content in client.acknowledged.items()}


@dataclass
class Chaos:
    """One stack with its wires and subscribers."""

    stack: WiredStack
    wires: Mapping[str, Wire]
    subscribers: FaultySubscribers
    summary: Summary

    @contextmanager
    def case(
        self,
        name: str,
        *,
        pace: float = PACE,
        large_every: int = 25,
        patience: float = 60,
        settle: float = 60,
        seed: int | None = None,
        before_audit: Callable[[], None] = lambda: None,
    ) -> Iterator[Load]:
        """Senders during the block, and the audit behind it. ``patience`` is the time in which every instance has to be
        taken, ``settle`` the time in which everything has to be where it belongs afterwards, seconds."""
        record = Record(name, seed)
        with ExitStack() as all_senders:
            clients: dict[str, Modality | StowClient] = {
                one: all_senders.enter_context(Modality(self.stack, one, patience))
                for one in ("dimse_proxy", "dimse_ingestion")
            }
            clients["stow"] = all_senders.enter_context(StowClient(self.stack, patience))
            load = Load(self.stack, record, clients)
            with self.summary.about(record):
                watch = all_senders.enter_context(MemoryWatch(lambda: self.stack.ready["pids"]))
                studies = Studies()
                with ExitStack() as sending:
                    for client in clients.values():
                        way = streaming(client, pace=pace, large_every=large_every, release_every=12, study=studies)
                        load.sending.append(sending.enter_context(way))
                    yield load
                for client in clients.values():
                    client.release()
                before_audit()
                self._audit(load, settle)
                record.peak_memory = watch.peaks()
                watch.assert_bounded()

    def _audit(self, load: Load, settle: float) -> None:
        record, acknowledged = load.record, load.acknowledged()
        record.acknowledged = {name: len(client.acknowledged) for name, client in load.clients.items()}
        record.longest_wait = round(max(client.longest for client in load.clients.values()), 2)
        try:
            audit(self.stack, acknowledged, self.subscribers, retrieved=RETRIEVED, seconds=settle)
        finally:
            record.lost = len(acknowledged.keys() - manifest_rows(self.stack).keys())
            record.twice_recorded = _twice_recorded(self.stack)
            record.delivered_again = self.subscribers.delivered_again(acknowledged.keys())


@contextmanager
def chaos(
    folder: Path, summary: Summary, *, environment: Mapping[str, str] | None = None, **wired: object
) -> Iterator[Chaos]:
    """A stack whose servers are behind wires, with a second event processor and a second ingestion.

    ``environment`` is for the services; ``wired`` are further members of the document that ``support.wired_up`` reads.
    """
    state = folder / "data" / "state.json"

    def port_of(name: str) -> Callable[[], int]:
        return lambda: int(json.loads(state.read_text())["ports"][name])

    with ExitStack() as everything:
        wires = {name: everything.enter_context(Wire(port_of(server))) for name, server in _PORTS.items()}
        subscribers = everything.enter_context(faulty_subscribers())
        twins = {name: a_free_port() for name in TWINS}
        document = {
            "wires": {name: wire.port for name, wire in wires.items()},
            "twins": twins,
            "environment": {**HURRY, **(environment or {})},
            **wired,
        }
        options = ("--revisioning-delay", str(QUIET), *subscribers.options)
        variables = {"WIRED": json.dumps(document), "PYTHONPATH": _with_tests()}
        program = (sys.executable, "-m", "support.wired_up")
        stack = everything.enter_context(imaging_up(folder, *options, environment=variables, program=program))
        yield Chaos(WiredStack(stack.process, stack.ready_file, stack.log, twins), wires, subscribers, summary)


def _twice_recorded(stack: Stack) -> int:
    with psycopg.connect(stack.ready["postgres"], connect_timeout=5) as database:
        row = database.execute("SELECT count(*) - count(DISTINCT sop_instance_uid) FROM dicom_instance").fetchone()
    assert row is not None
    return int(row[0])


def _with_tests() -> str:
    return os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))

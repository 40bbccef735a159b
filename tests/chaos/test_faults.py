"""Faults of every kind under load, the same audit behind each. One installation for all: each case leaves it whole."""

import asyncio
import contextlib
import copy
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from pydicom.uid import generate_uid

from support.audit import dead_letters, manifest_rows, until, until_settled
from support.chaos import LONG, Chaos, Load, chaos
from support.chaos_summary import Summary
from support.faults import SlowDown, kill
from support.faulty_subscribers import HANGS
from support.insisting import Modality, StowClient
from support.instances import instance
from support.poison import ANSWER_SECONDS, Poison, buried, by_c_store, by_stow, poisons
from support.webhook import Reply
from support.wires import Wire

SEED = int(os.environ.get("CHAOS_SEED") or (random.SystemRandom().randrange(10**6) if LONG else 6))
KILLS = int(os.environ.get("CHAOS_KILLS") or (100 if LONG else 4))
MINUTES = float(os.environ.get("CHAOS_MINUTES") or 0)
KILLS_A_ROUND = 10
SECONDS = 6 if LONG else 2  # that a fault lasts
pytestmark = [
    pytest.mark.timeout(900 if LONG else 240),
    # pynetdicom leaves the socket of a connection that was refused to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, summary: Summary) -> Iterator[Chaos]:
    with chaos(tmp_path_factory.mktemp("chaos"), summary) as running:
        yield running


@pytest.mark.timeout(int(600 + 60 * KILLS + 120 * MINUTES))
def test_every_part_killed_at_random_moments(whole: Chaos, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nCHAOS_SEED={SEED} CHAOS_KILLS={KILLS}")
    end, left, number = time.monotonic() + 60 * MINUTES, KILLS, 0
    while left > 0 or time.monotonic() < end:
        dice = random.Random(f"{SEED} {number}")
        with whole.case(f"kill -9, round {number}", seed=SEED, settle=120) as load:
            load.goes_on()
            for _ in range(min(left, KILLS_A_ROUND) if left > 0 else KILLS_A_ROUND):
                left -= 1
                kill_one(load, dice)
            until(lambda: len(load.stack.ready["pids"]) == PARTS, 60, "every part runs again")
            load.goes_on()
        number += 1


PARTS = 12  # three servers, four services, two twins, three bindings


def kill_one(load: Load, dice: random.Random) -> None:
    """One that runs, perhaps while others are on their way back."""
    time.sleep(dice.uniform(0, 1.5))
    victim, waits = dice.choice(sorted(load.stack.ready["pids"])), dice.random() < 0.5
    with load.fault(f"kill -9 {victim}"), contextlib.suppress(ProcessLookupError, KeyError):
        if waits:
            kill(load.stack, victim)
        else:
            os.kill(load.stack.ready["pids"][victim], signal.SIGKILL)


# Connections

CUT_AFTER = 256 << 10
"""Bytes: most go by in the large instances, of which every fifth is one here; to the database no pixels go, so that it
is the rows of some dozens there, which take a while on a busy machine."""


def cut_within_an_instance(wire: Wire) -> None:
    for _ in range(3 if LONG else 1):
        wire.cut_after(CUT_AFTER)
        until(lambda: wire.has_cut, 120, what="so many bytes on their way")
        wire.mend()


def cut_again_and_again(wire: Wire) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        wire.cut()
        time.sleep(0.3)


def refused(wire: Wire) -> None:
    wire.refuse()
    time.sleep(SECONDS)


def swallowed(wire: Wire) -> None:
    wire.swallow()
    time.sleep(SECONDS)


def slow(wire: Wire) -> None:
    wire.slow(0.15)
    time.sleep(SECONDS)


def told_to_slow_down(wire: Wire) -> None:
    with SlowDown() as front:
        wire.lead_to(front.port)
        time.sleep(SECONDS)
        assert front.requests


EVERY_CONNECTION = [cut_within_an_instance, cut_again_and_again, refused, swallowed, slow]


def suffer(whole: Chaos, load: Load, name: str, fault: Callable[[Wire], None]) -> None:
    """The fault, its end, and the senders going on."""
    wire = whole.wires[name]
    load.goes_on(90)
    with load.fault(f"{name}: {fault.__name__.replace('_', ' ')}"):
        try:
            fault(wire)
        finally:
            wire.mend()
    load.goes_on(90, after=True)


def test_connections_that_fail_in_different_ways(whole: Chaos) -> None:
    with whole.case("connections of all kinds", large_every=8, patience=90) as load:
        suffer(whole, load, "wan", cut_within_an_instance)
        suffer(whole, load, "s3", told_to_slow_down)
        suffer(whole, load, "postgres", cut_again_and_again)


@pytest.mark.long
@pytest.mark.parametrize("name", ["wan", "nats", "postgres", "s3"])
@pytest.mark.parametrize("fault", EVERY_CONNECTION, ids=lambda fault: fault.__name__)
def test_connections_that_fail(whole: Chaos, name: str, fault: Callable[[Wire], None]) -> None:
    with whole.case(f"{name}: {fault.__name__.replace('_', ' ')}", large_every=5, patience=150, settle=150) as load:
        suffer(whole, load, name, fault)


# Subscribers


def test_subscribers_that_refuse_hang_and_stay_away(whole: Chaos) -> None:
    """Away for longer than the retry window means dead letters; a redrive brings them."""
    subscribers = whole.subscribers

    def redriven() -> None:
        subscribers.fail(None)
        until(lambda: redrive(whole) == {}, 90, "no dead letters are left", every=2)

    with whole.case("subscribers", before_audit=redriven) as load:
        for what, fault in (("answer 500", Reply(500)), ("hang", HANGS)):
            with load.fault(f"subscribers {what}"):
                refused = subscribers.refused
                subscribers.fail(fault)
                until(lambda before=refused: all(a > b for a, b in zip(subscribers.refused, before, strict=True)))
                subscribers.fail(None)
            load.goes_on()
        with load.fault("subscribers away for longer than the retry window"):
            subscribers.fail(Reply(503))
            until(lambda: dead_letters(whole.stack), 90, "dead letters", every=0.5)


def redrive(whole: Chaos) -> dict[str, int]:
    """By the command; gives what is left. What is still within its tries may become one meanwhile."""
    folder = whole.stack.ready_file.parent / "data"
    command = [sys.executable, "-m", "imaging_services.cli", "redrive", "--data-dir", str(folder)]
    subprocess.run(command, check=True, timeout=60, capture_output=True)
    return dead_letters(whole.stack)


# Races


def test_the_same_instances_by_every_way_at_once(whole: Chaos) -> None:
    """Two event processors and two ingestions, and all four ways in, with the same instances of the same studies."""
    study = [{"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()} for _ in range(2)]
    same = [instance(**study[number % 2]) for number in range(40 if LONG else 16)]
    with whole.case("the same instances by four ways at once") as load, ExitStack() as ways:
        names = ("dimse_proxy", "dimse_ingestion", "dimse_ingestion_2")
        racing: list[Modality | StowClient] = [ways.enter_context(Modality(whole.stack, name)) for name in names]
        racing.append(ways.enter_context(StowClient(whole.stack)))
        line = threading.Barrier(len(racing))

        def run(client: Modality | StowClient) -> None:
            for one in same:
                line.wait(60)
                client.deliver(copy.deepcopy(one))

        with load.fault("the same instances by four ways"), ThreadPoolExecutor(len(racing)) as threads:
            for result in [threads.submit(run, client) for client in racing]:
                result.result()
        for client in racing:
            client.release()
        load.clients["dimse_proxy"].acknowledged |= racing[0].acknowledged


# Poison


def test_instances_made_to_crash_whoever_reads_them(whole: Chaos) -> None:
    """Every entrance answers each in time, nobody falls, and what was accepted is recorded, or a dead letter."""
    accepted: set[str] = set()

    def recorded_or_buried() -> None:
        until_settled(whole.stack, 60)
        sops = {sop for _, _, sop in manifest_rows(whole.stack)}
        assert accepted - sops <= buried(whole.stack)

    pids = whole.stack.ready["pids"]
    with whole.case("poison", patience=120, before_audit=recorded_or_buried) as load:
        load.goes_on()
        for one in poisons():
            with load.fault(f"poison: {one.name}"):
                answers = asyncio.run(to_every_entrance(whole, one))
            load.record.faults[-1]["answers"] = answers
            if 0 in answers or 200 in answers:
                accepted.add(one.sop_instance_uid)
        load.goes_on(after=True)
    assert whole.stack.ready["pids"] == pids


async def to_every_entrance(whole: Chaos, one: Poison) -> list[int | None]:
    async with asyncio.timeout(ANSWER_SECONDS):
        return list(
            await asyncio.gather(
                by_c_store(whole.stack, "dimse_proxy", one),
                by_c_store(whole.stack, "dimse_ingestion", one),
                by_stow(whole.stack, one),
            )
        )

"""Storage commitment after the N-ACTION: what is waited for, what is tried again, and what ends it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from imaging_services.adapters.memory.jobs import MemoryJobs
from imaging_services.apps.dimse_ingestion.commitment import Commitment
from imaging_services.apps.dimse_ingestion.reports import Reporter
from imaging_services.apps.dimse_ingestion.transactions import Reference, Transaction, Verdict
from imaging_services.apps.dimse_ingestion.verification import Present, Verifier
from imaging_services.domain.errors import BackendUnavailable, PermanentError, Refused
from imaging_services.domain.jobs import Job, NotYet

SAFE, MISSING = Reference("1.2", "1.2.1"), Reference("1.2", "1.2.2")
SERIES = "1.3", "1.4"
HERE = Verdict((SAFE, MISSING))
NOT_HERE = Verdict((SAFE,), ((MISSING, 0x0112),))
ANOTHER_CLASS = Verdict((SAFE,), ((MISSING, 0x0119),))
OBJECT_GONE = Verdict((SAFE,), ((MISSING, 0x0112),))


@dataclass
class Parts:
    """Verifier and reporter: an exception instead of a verdict is raised. ``recorded`` is what the manifest has, the
    last of it since ``arrived`` seconds."""

    verdict: Verdict | Exception
    recorded: tuple[Reference, ...] = (SAFE, MISSING)
    arrived: float = 3600.0
    reported: list[Verdict] = field(default_factory=list)
    same_association_seconds: float = 1.0

    async def present(self, references: Any) -> Present:
        return {one.sop_instance_uid: SERIES for one in references if one in self.recorded}

    async def last_arrival(self, present: Present) -> datetime | None:
        return datetime.now(UTC) - timedelta(seconds=self.arrived) if present else None

    async def verify(self, references: Any, present: Present) -> Verdict:
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict

    async def report(self, transaction: Transaction, verdict: Verdict) -> None:
        self.reported.append(verdict)


async def done(parts: Parts, *, age: float = 0, relayed: bool = False, patience: float = 3600) -> None:
    """One try of a transaction that is so many seconds old, and came directly or over the relay."""
    limit = timedelta(seconds=patience)
    commitment = Commitment(MemoryJobs(), cast(Verifier, parts), cast(Reporter, parts), patience=limit)
    came_by = ("", "") if relayed else ("an association", commitment._process)
    transaction = Transaction("1.9", "MODALITY", *came_by, (SAFE, MISSING))
    await commitment._do(Job(transaction.encode(), 1, datetime.now(UTC) - timedelta(seconds=age)))


async def test_what_a_relay_may_still_carry_is_waited_for_and_looked_for_soon_again():
    parts = Parts(NOT_HERE, recorded=(SAFE,))
    for age in (0, 100, 290):
        with pytest.raises(NotYet, match="1 instances"):
            await done(parts, age=age, relayed=True)
    assert parts.reported == []
    await done(come := Parts(HERE), age=295, relayed=True)
    assert come.reported == [HERE]


@pytest.mark.parametrize(("recorded", "arrived"), [((), 0), ((SAFE,), 301)])
async def test_it_is_not_waited_for_long(recorded, arrived):
    parts = Parts(NOT_HERE, recorded, arrived)
    await done(parts, age=600, relayed=True)
    assert parts.reported == [NOT_HERE]


async def test_the_rest_of_a_study_that_still_arrives_is_waited_for():
    parts = Parts(NOT_HERE, recorded=(SAFE,), arrived=60)
    with pytest.raises(NotYet, match="1 instances"):
        await done(parts, age=3000, relayed=True)
    await done(parts, age=3601, relayed=True)
    assert parts.reported == [NOT_HERE]


async def test_a_requestor_with_little_patience_is_told_what_is_missing_and_not_dropped():
    parts = Parts(NOT_HERE, recorded=(SAFE,))
    with pytest.raises(NotYet, match="1 instances"):
        await done(parts, age=50, relayed=True, patience=60)
    await done(parts, age=70, relayed=True, patience=60)
    assert parts.reported == [NOT_HERE]


@pytest.mark.parametrize(
    ("relayed", "verdict", "recorded"),
    [(False, NOT_HERE, (SAFE,)), (True, ANOTHER_CLASS, (SAFE, MISSING)), (True, OBJECT_GONE, (SAFE, MISSING))],
)
async def test_what_cannot_change_is_reported_at_once(relayed, verdict, recorded):
    parts = Parts(verdict, recorded)
    await done(parts, relayed=relayed)
    assert parts.reported == [verdict]


@pytest.mark.parametrize("error", [Refused("access denied"), BackendUnavailable("away")])
async def test_a_verdict_that_cannot_be_had_drops_no_transaction(error):
    parts = Parts(error)
    with pytest.raises(BackendUnavailable):
        await done(parts)
    assert parts.reported == []


@pytest.mark.parametrize("error", [Refused("access denied"), BackendUnavailable("away"), ValueError("unforeseen")])
async def test_nothing_is_tried_for_ever(error):
    with pytest.raises(PermanentError, match="could not be told in time"):
        await done(Parts(error), age=3601)

"""The promises of docs/architecture.md, held while parts of the running product are killed, stopped and restarted."""

import copy
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pydicom
import pytest
from pydicom.uid import generate_uid

from support.audit import (
    Modality,
    StowClient,
    audit,
    identity,
    of_size,
    retrieved,
    streaming,
    until,
    until_settled,
)
from support.faults import hanging, kill, until_again
from support.instances import instance
from support.stack import Stack, imaging_up
from support.subscribers import Subscribers, subscribed
from support.webhook import Webhook

pytestmark = [
    pytest.mark.timeout(240),
    # pynetdicom leaves the socket of a connection that was refused to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

QUIET = 2  # seconds, --revisioning-delay
# Seconds for which an association counts as open after a sign of life; a process comes back sooner on a busy machine.
LEASE = 20
HURRY = {
    "STUDY_AGGREGATION_SCHEDULE": "500ms",
    "DIMSE_ASSOCIATION_LEASE_SECONDS": str(LEASE),
    "DIMSE_ACK_WAIT_SECONDS": "5",  # what a killed ingestion had in hand is given to the next so soon
}
ENTRANCES = ("dimse_proxy", "dimse_ingestion")


@pytest.fixture(scope="module")
def subscribers() -> Iterator[Subscribers]:
    with subscribed() as made:
        yield made


@pytest.fixture(scope="module")
def subscriber(subscribers: Subscribers) -> Webhook:
    return subscribers.studies


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, subscribers: Subscribers) -> Iterator[Stack]:
    options = ("--revisioning-delay", str(QUIET), *subscribers.options)
    with imaging_up(tmp_path_factory.mktemp("promises"), *options, environment=HURRY) as running:
        yield running


def test_nothing_acknowledged_is_lost_or_announced_twice_when_every_part_is_killed(
    stack: Stack, subscribers: Subscribers
) -> None:
    with ExitStack() as senders:
        clients = [*(senders.enter_context(Modality(stack, name)) for name in ENTRANCES), StowClient(stack)]
        with ExitStack() as sending:
            for client in clients:
                sending.enter_context(streaming(client))
            for victims in (
                ["dimse-proxy", "dicomweb"],
                ["dimse-ingestion"],
                ["event-processor"],
                ["nats"],
                ["s3"],
                ["postgres"],
            ):
                sent = [len(client.acknowledged) for client in clients]
                kill(stack, *victims)
                for client, before in zip(clients, sent, strict=True):
                    goes_on(client, before, f"{victims}")
    audit(stack, {one: data for client in clients for one, data in client.acknowledged.items()}, subscribers)


def goes_on(client: Modality | StowClient, before: int, what: str) -> None:
    until(lambda: len(client.acknowledged) > before, what=f"{client} goes on after the end of {what}")


def test_the_last_version_sent_is_the_one_retrieved(stack: Stack) -> None:
    uids = [{"SOPInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()} for _ in range(4)]
    study = generate_uid()
    with Modality(stack, "dimse_proxy") as modality:
        for version in range(1, 16):
            for own in uids:  # earlier versions are larger, and so take longer at the ingestion
                data_set = of_size((16 - version) * 64 * 1024, StudyInstanceUID=study, **own)
                data_set.ImageComments = f"version {version}"
                modality.deliver(data_set)
    until_settled(stack)
    assert [retrieved(stack, one).ImageComments for one in modality.acknowledged] == ["version 15"] * 4


def test_an_open_association_holds_the_revision_of_its_study_back(stack: Stack, subscriber: Webhook) -> None:
    """At each entrance, at the same time."""
    studies = {generate_uid(): entrance for entrance in ENTRANCES}
    sent = {study: [instance(StudyInstanceUID=study) for _ in range(2)] for study in studies}
    with ExitStack() as associations:
        modalities = {study: associations.enter_context(Modality(stack, name)) for study, name in studies.items()}
        for study, (first, _) in sent.items():
            modalities[study].deliver(first)
        held_for_longer_than(LEASE, stack, subscriber, *studies)
        for study, (_, second) in sent.items():
            modalities[study].deliver(second)
    for study, entrance in studies.items():
        revisions_of(subscriber, study, 1)
        until_settled(stack)
        assert changes(subscriber, study) == [(0, "addition", set(map(sop, sent[study])))], entrance


def test_a_study_whose_last_instance_waits_behind_a_backlog_is_announced_once(
    stack: Stack, subscriber: Webhook
) -> None:
    study = generate_uid()
    first, last = (instance(StudyInstanceUID=study) for _ in range(2))
    with Modality(stack, "dimse_proxy") as other:
        with Modality(stack, "dimse_proxy") as modality, hanging(stack.ready["pids"]["dimse-ingestion"]):
            modality.deliver(first)
            for _ in range(40):  # they take the ingestion longer than a study has to be quiet
                other.deliver(of_size(9 << 20))
            modality.deliver(last)
        revisions_of(subscriber, study, 1)
        until_settled(stack)
        marker = instance()
        other.deliver(marker)
    revisions_of(subscriber, marker.StudyInstanceUID, 1)
    assert changes(subscriber, study) == [(0, "addition", {sop(first), sop(last)})]


def test_the_hold_outlives_a_crash_of_the_ingestion(stack: Stack, subscriber: Webhook) -> None:
    one = instance()
    with Modality(stack, "dimse_proxy") as modality:
        modality.deliver(one)
        until_settled(stack)
        kill(stack, "dimse-ingestion")
        held_for_longer_than(LEASE, stack, subscriber, one.StudyInstanceUID)
    revisions_of(subscriber, one.StudyInstanceUID, 1)


def held_for_longer_than(seconds: float, stack: Stack, subscriber: Webhook, *studies: str) -> None:
    """Other studies, sent later and complete, are announced meanwhile; these are not."""
    begun = time.monotonic()
    while time.monotonic() < begun + seconds + QUIET:
        other = instance()
        with Modality(stack, "dimse_ingestion") as modality:
            modality.deliver(other)
        revisions_of(subscriber, other.StudyInstanceUID, 1)
        assert [revisions_of(subscriber, study, 0) for study in studies] == [[]] * len(studies)


def test_each_change_of_a_study_is_announced_once_and_no_change_is_not(stack: Stack, subscriber: Webhook) -> None:
    study = generate_uid()
    first, later = (instance(StudyInstanceUID=study) for _ in range(2))
    changed = copy.deepcopy(first)
    changed.ImageComments = "read again"
    for number, data_set in enumerate((first, later, changed)):
        send(stack, data_set)
        revisions_of(subscriber, study, number + 1)
    send(stack, changed)
    marker = instance()
    send(stack, marker)
    revisions_of(subscriber, marker.StudyInstanceUID, 1)
    assert changes(subscriber, study) == [
        (0, "addition", {sop(first)}),
        (1, "addition", {sop(later)}),
        (2, "modification", {sop(first)}),
    ]


def send(stack: Stack, data_set: pydicom.Dataset) -> None:
    with Modality(stack, "dimse_proxy") as modality:
        modality.deliver(data_set)
    until_settled(stack)


def sop(data_set: pydicom.Dataset) -> str:
    return str(data_set.SOPInstanceUID)


def revisions_of(subscriber: Webhook, study: str, count: int) -> list[dict[str, object]]:
    """The study's revisions as delivered, once there are so many."""

    def delivered() -> list[dict[str, object]]:
        return [event["data"] for event in subscriber.events if event["data"]["study"]["studyInstanceUID"] == study]

    until(lambda: len(delivered()) >= count, what=f"revision {count - 1} of the study")
    return delivered()


def changes(subscriber: Webhook, study: str) -> list[tuple[object, str, set[str]]]:
    """Number, kind and SOP instances of each change, by delivery."""
    return [
        (revision["revision"], kind.removesuffix("s"), {name.rpartition("/")[2] for name in names})
        for revision in revisions_of(subscriber, study, 0)
        for kind, names in revision["changeSet"].items()  # type: ignore[attr-defined]
        if names
    ]


@pytest.mark.parametrize(("entrance", "backend"), [("dimse_proxy", "nats"), ("dimse_ingestion", "postgres")])
def test_senders_wait_while_a_backend_hangs(stack: Stack, entrance: str, backend: str) -> None:
    with Modality(stack, entrance) as modality:
        with streaming(modality):
            before = until(lambda: len(modality.acknowledged))
            with hanging(stack.ready["pids"][backend]):
                at_once = len(modality.acknowledged)
                time.sleep(4)  # the length of the disturbance
                assert len(modality.acknowledged) <= at_once + 1
            until(lambda: len(modality.acknowledged) > at_once + 10, what="sending goes on")
        assert before
        assert set(modality.statuses) <= {0, 0xA700}
    audit(stack, modality.acknowledged)


def test_confirmed_delivery_says_success_when_recorded_and_a700_when_nobody_records(tmp_path: Path) -> None:
    with imaging_up(tmp_path, environment={"DIMSE_DELIVERY_MODE": "confirmed"}) as stack:
        with Modality(stack, "dimse_proxy") as modality:
            for _ in range(20):
                data_set = instance()
                assert modality.store(data_set) == 0
                assert found(stack, data_set)
            pid = stack.ready["pids"]["dimse-ingestion"]
            os.kill(pid, signal.SIGKILL)
            begun = time.monotonic()
            assert modality.store(instance()) == 0xA700
            assert time.monotonic() < begun + 30  # the time-out is 60 s
            until_again(stack, {"dimse-ingestion": pid})
            modality.deliver(instance())
        audit(stack, modality.acknowledged)


def found(stack: Stack, data_set: pydicom.Dataset) -> bool:
    """QIDO-RS gives the instance now."""
    study, _, uid = identity(data_set)
    answer = httpx.get(f"{stack.url('dicomweb')}/studies/{study}/instances", params={"SOPInstanceUID": uid})
    return answer.status_code == 200 and len(answer.json()) == 1

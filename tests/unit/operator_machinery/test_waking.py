"""What is looked at, and when: events, the regular look at everything, and what becomes of a key after its pass."""

import asyncio
from typing import Any

import pytest

from imaging_operator.discovery import Discovery
from imaging_operator.errors import MissingReference, Wrong
from imaging_operator.queue import WorkQueue
from imaging_operator.references import ReferenceIndex, Target
from imaging_operator.resources import BROKER, KNATIVE_SERVICE, SCALED_OBJECT, SINK_BINDING, TRIGGER, Key, custom
from imaging_operator.work import Resync, Waker, Worker
from support.kubernetes_api import KubernetesApi

Json = dict[str, Any]
A, B = Key("Fake", "ns", "a"), Key("Fake", "ns", "b")
CUSTOMS = {"Fake": custom("Fake", "fakes")}
ROOT = "/apis/imaging-ingestion.alvearie.org/v1alpha1"


@pytest.fixture
def queue() -> WorkQueue:
    return WorkQueue(retry_seconds=5)


@pytest.fixture
def index() -> ReferenceIndex:
    return ReferenceIndex()


@pytest.fixture
def waker(queue: WorkQueue, index: ReferenceIndex) -> Waker:
    return Waker(queue, index, ["Fake"])


def document(kind: str, name: str, **metadata: Any) -> Json:
    return {"kind": kind, "metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}", **metadata}}


def taken(queue: WorkQueue) -> list[Key]:
    """All keys that are due now; they are done then."""
    found = []
    while queue.depth:
        coroutine = queue.take()
        try:
            coroutine.send(None)
        except StopIteration as stop:
            found.append(stop.value)
            queue.done(stop.value)
    return found


def test_a_resource_is_looked_at_when_it_changes_and_not_when_its_status_does(queue: WorkQueue, waker: Waker) -> None:
    waker.saw(document("Fake", "a", generation=1), gone=False)
    assert taken(queue) == [A]
    waker.saw(document("Fake", "a", generation=1, resourceVersion="2"), gone=False)
    assert taken(queue) == []
    for change in ({"generation": 2}, {"generation": 2, "deletionTimestamp": "now"}, {"generation": 2, "uid": "other"}):
        waker.saw(document("Fake", "a", **change), gone=False)
        assert taken(queue) == [A]
    waker.saw(document("Fake", "a", generation=2, uid="other"), gone=True)
    assert taken(queue) == [A]


def test_an_owned_object_wakes_its_owner_also_without_labels(queue: WorkQueue, waker: Waker) -> None:
    owner = {"kind": "Fake", "name": "b", "controller": True}
    waker.saw(document("Deployment", "d", ownerReferences=[owner]), gone=False)
    assert taken(queue) == [B]
    waker.saw(document("Deployment", "d", ownerReferences=[owner | {"kind": "Stranger"}]), gone=False)
    waker.saw(document("Deployment", "d", ownerReferences=[owner | {"controller": False}]), gone=False)
    waker.saw(document("Deployment", "d"), gone=True)
    assert taken(queue) == []


def test_a_reference_wakes_who_uses_it(queue: WorkQueue, index: ReferenceIndex, waker: Waker) -> None:
    index.remember(A, [Target("Secret", "ns", "s"), Target("Fake", "ns", "b")])
    waker.saw(document("Secret", "other"), gone=False)
    assert taken(queue) == []
    waker.saw(document("Secret", "s"), gone=False)
    assert taken(queue) == [A]
    waker.saw(document("Fake", "b", generation=1), gone=False)
    assert sorted(taken(queue)) == [A, B]
    waker.saw(document("Fake", "b", generation=1), gone=False)  # its status, which others may read
    assert taken(queue) == [A]


class FakeReconciler:
    """Does as told."""

    def __init__(self) -> None:
        self.result: bool | Exception = True

    async def reconcile(self, key: Key) -> bool:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.mark.parametrize(
    ("result", "known", "due_again"),
    [
        (True, True, False),
        (False, False, False),
        (Wrong("for good"), True, False),
        (MissingReference("for now"), True, True),
        (RuntimeError("a bug"), True, True),
    ],
)
async def test_what_becomes_of_a_key(queue: WorkQueue, result: bool | Exception, known: bool, due_again: bool) -> None:
    reconciler = FakeReconciler()
    reconciler.result = result
    worker = Worker(queue, reconciler, asyncio.Event())  # type: ignore[arg-type]
    queue.add(A)
    await worker.one(await queue.take())
    assert (A in queue) is known
    assert (A in queue and queue._entries[A].due is not None) is due_again


async def test_nothing_is_done_without_the_lead(queue: WorkQueue) -> None:
    leads, done = asyncio.Event(), asyncio.Event()

    class Telling(FakeReconciler):
        async def reconcile(self, key: Key) -> bool:
            done.set()
            return True

    worker = asyncio.create_task(Worker(queue, Telling(), leads).run())  # type: ignore[arg-type]
    queue.add(A)
    for _ in range(20):
        await asyncio.sleep(0)
    assert not done.is_set()
    leads.set()
    async with asyncio.timeout(30):
        await done.wait()
    worker.cancel()


@pytest.fixture
def api() -> KubernetesApi:
    api = KubernetesApi()
    api.served.add((ROOT, "fakes"))
    return api


async def test_everything_is_looked_at_and_what_is_gone_too(api: KubernetesApi, queue: WorkQueue) -> None:
    cluster = api.cluster()
    discovery = Discovery(cluster, CUSTOMS)
    await discovery.look()
    api.put("fakes", document("Fake", "a"))
    queue.add(B)
    await queue.take()
    queue.done(B)
    await Resync(cluster, discovery, queue, []).look()
    assert sorted(taken(queue)) == [A, B]
    await Resync(cluster, discovery, queue, ["elsewhere"]).look()
    assert sorted(taken(queue)) == [A, B]  # both are known: their absence there is for the pass to find


async def test_a_look_that_failed_is_repeated_soon_and_one_may_be_asked_for(
    api: KubernetesApi, queue: WorkQueue
) -> None:
    cluster = api.cluster()
    discovery = Discovery(cluster, CUSTOMS)
    await discovery.look()
    resync = Resync(cluster, discovery, queue, [])
    api.put("fakes", document("Fake", "a"))
    with api.failing(503):
        running = asyncio.create_task(resync.run(seconds=3600, retry_seconds=0.05))
        async with asyncio.timeout(30):
            while len(api.requests) < 4:
                await asyncio.sleep(0.01)
    async with asyncio.timeout(30):
        assert await queue.take() == A
        queue.done(A)
        resync.soon()
        assert await queue.take() == A
    assert resync.seconds_since_look() < 30
    running.cancel()


async def test_what_is_served_decides_about_features(api: KubernetesApi) -> None:
    discovery = Discovery(api.cluster(), CUSTOMS)
    await discovery.look()
    assert discovery.changed.is_set()
    assert discovery.customs == (CUSTOMS["Fake"],)
    assert (discovery.features.knative_serving, discovery.features.keda) == (False, False)
    assert not {KNATIVE_SERVICE, SCALED_OBJECT} & set(discovery.owned)
    discovery.changed.clear()
    await discovery.look()
    assert not discovery.changed.is_set()
    api.served |= {(each.root, each.plural) for each in (BROKER, TRIGGER, KNATIVE_SERVICE)}
    await discovery.look()
    assert discovery.changed.is_set()
    assert discovery.features.knative_serving
    assert not discovery.features.knative_eventing
    api.served |= {(each.root, each.plural) for each in (SINK_BINDING, SCALED_OBJECT)}
    await discovery.look()
    assert discovery.features.knative_eventing
    assert discovery.features.keda
    assert {KNATIVE_SERVICE, SCALED_OBJECT} < set(discovery.owned) & set(discovery.watched)
    api.served.clear()
    await discovery.look()
    assert discovery.customs == ()


async def test_while_the_api_server_is_away_the_last_answer_counts(api: KubernetesApi) -> None:
    discovery = Discovery(api.cluster(), CUSTOMS)
    await discovery.look()
    with api.failing(503):
        looking = asyncio.create_task(discovery.keep_looking(0.01))
        before = len(api.requests)
        async with asyncio.timeout(30):
            while len(api.requests) < before + 3:
                await asyncio.sleep(0.01)
        assert discovery.customs == (CUSTOMS["Fake"],)
    looking.cancel()

"""The Lease: one leader at a time, whatever happens to it."""

import asyncio
from typing import Any

import pytest

from imaging_operator.leader import Leader, LeadLost
from support.kubernetes_api import KubernetesApi

Json = dict[str, Any]
SECONDS = 0.3


@pytest.fixture
def api() -> KubernetesApi:
    return KubernetesApi()


def replica(api: KubernetesApi, name: str, seconds: float = SECONDS) -> Leader:
    return Leader(api.cluster(), "ns", "lease", name, seconds)


def holder(api: KubernetesApi) -> str:
    lease = api.get("leases", "lease")
    assert lease is not None
    return str(lease["spec"]["holderIdentity"])


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def test_the_first_takes_it_and_the_second_waits(api: KubernetesApi) -> None:
    first, second = replica(api, "one", 30), replica(api, "two", 30)
    await first.acquire()
    assert first.leads.is_set()
    waiting = asyncio.create_task(second.acquire())
    await until(lambda: api.requests.count(("GET", "/apis/coordination.k8s.io/v1/namespaces/ns/leases/lease")) >= 2)
    assert not second.leads.is_set()
    assert holder(api) == "one"
    waiting.cancel()


async def test_a_released_lease_is_free_at_once(api: KubernetesApi) -> None:
    first, second = replica(api, "one", 3600), replica(api, "two", 3600)
    await first.acquire()
    await first.release()
    assert not first.leads.is_set()
    async with asyncio.timeout(30):
        await second.acquire()
    assert holder(api) == "two"
    lease = api.get("leases", "lease")
    assert lease is not None
    assert lease["spec"]["leaseTransitions"] == 2


async def test_only_ones_own_lease_is_released(api: KubernetesApi) -> None:
    first, second = replica(api, "one", 3600), replica(api, "two", 3600)
    await first.acquire()
    await second.release()
    assert holder(api) == "one"


async def test_a_silent_leader_is_replaced(api: KubernetesApi) -> None:
    await replica(api, "one", 1).acquire()
    async with asyncio.timeout(30):
        await replica(api, "two", 1).acquire()
    assert holder(api) == "two"


async def test_a_leader_that_renews_is_not_replaced(api: KubernetesApi) -> None:
    first, second = replica(api, "one", 1), replica(api, "two", 1)
    await first.acquire()
    holding, waiting = asyncio.create_task(first.hold()), asyncio.create_task(second.acquire())
    renewals = lambda: api.requests.count(("PUT", "/apis/coordination.k8s.io/v1/namespaces/ns/leases/lease"))  # noqa: E731
    await until(lambda: renewals() >= 6)
    assert holder(api) == "one"
    assert not waiting.done()
    for task in (holding, waiting):
        task.cancel()


async def test_who_finds_another_leader_ends(api: KubernetesApi) -> None:
    first = replica(api, "one")
    await first.acquire()
    api.objects["leases", "ns", "lease"]["spec"] |= {"holderIdentity": "two", "leaseDurationSeconds": 3600}
    with pytest.raises(LeadLost, match="two leads now"):
        async with asyncio.timeout(30):
            await first.hold()
    assert not first.leads.is_set()


async def test_a_leader_pauses_while_the_api_server_is_away_and_goes_on_afterwards(api: KubernetesApi) -> None:
    first = replica(api, "one")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    with api.failing(503):
        await until(lambda: not first.leads.is_set())
    await until(first.leads.is_set)
    assert holder(api) == "one"
    holding.cancel()


async def test_of_two_that_take_it_at_once_one_gets_it(api: KubernetesApi) -> None:
    replicas = [replica(api, name, 30) for name in "abcdef"]
    tasks = [asyncio.create_task(each.acquire()) for each in replicas]
    await until(lambda: any(each.leads.is_set() for each in replicas))
    await until(lambda: len([path for method, path in api.requests if method == "GET"]) >= len(replicas))
    assert [each.leads.is_set() for each in replicas].count(True) == 1
    for task in tasks:
        task.cancel()


async def test_a_release_that_fails_is_no_error(api: KubernetesApi) -> None:
    first = replica(api, "one")
    await first.acquire()
    with api.failing(503):
        await first.release()
    assert not first.leads.is_set()


async def test_without_an_election_no_lease_is_touched(api: KubernetesApi) -> None:
    only = replica(api, "one")
    only.lead_alone()
    assert only.leads.is_set()
    assert api.requests == []

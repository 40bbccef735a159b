"""The end of a resource: what is kept is named, and what shall not be kept is removed first."""

import pytest

from imaging_operator.errors import NotYet
from imaging_operator.reconcile import FINALIZER
from imaging_operator.settings import OperatorSettings
from support.operator_stand import KEY, Stand


@pytest.fixture
def stand() -> Stand:
    return Stand()


async def test_what_is_kept_is_named_when_the_resource_is_gone(stand: Stand) -> None:
    stand.resource(secret="")
    await stand.run()
    del stand.api.objects["fakes", "ns", "one"]
    assert not await stand.run()
    assert ("Kept", "Kept, because retention is Retain: JetStream stream one-log") in stand.api.events()
    stand.api.requests.clear()
    assert not await stand.run()
    assert stand.api.writes() == []
    assert len([reason for reason, _ in stand.api.events() if reason == "Kept"]) == 1


async def test_the_finalizer_comes_and_goes_with_the_retention(stand: Stand) -> None:
    stand.resource(retention="Delete")
    await stand.run()
    assert stand.api.objects["fakes", "ns", "one"]["metadata"]["finalizers"] == [FINALIZER]
    stand.api.objects["fakes", "ns", "one"]["metadata"]["finalizers"].append("example.org/other")
    stand.change(retention="Retain")
    await stand.run()
    assert stand.api.objects["fakes", "ns", "one"]["metadata"]["finalizers"] == ["example.org/other"]


async def deleted(stand: Stand) -> None:
    """A resource with retention Delete whose deletion began."""
    stand.resource(retention="Delete")
    await stand.run()
    await stand.api.client().delete("/apis/imaging-ingestion.alvearie.org/v1alpha1/namespaces/ns/fakes/one")


async def test_streams_go_after_the_workloads(stand: Stand) -> None:
    await deleted(stand)
    with pytest.raises(NotYet, match=r"^Waiting for ConfigMap one-lists, Deployment one to end$"):
        await stand.run()
    assert stand.remover.asked == []
    assert stand.api.names("deployments") == []
    await stand.run()
    assert stand.remover.asked == ["one"]
    assert stand.api.names("fakes") == []
    assert ("StreamsRemoved", "Removed: JetStream stream one-log") in stand.api.events()
    assert not await stand.run()
    assert "Kept" not in dict(stand.api.events())


async def test_streams_wait_for_those_who_would_make_them_again(stand: Stand) -> None:
    stand.resource("two", uses="one")
    stand.resource("three", uses="two")
    stand.resource("wrong", text={"no": "text"})
    await deleted(stand)
    with pytest.raises(NotYet, match="Waiting for"):
        await stand.run()
    with pytest.raises(NotYet, match=r": Fake two$"):
        await stand.run()
    assert stand.status["message"].startswith("The streams cannot be removed while these use them")
    assert stand.remover.asked == []
    assert stand.index.users("Fake", "ns", "two") == {KEY}  # its end is seen at once
    del stand.api.objects["fakes", "ns", "two"]
    await stand.run()
    assert stand.remover.asked == ["one"]


async def test_deletion_does_not_wait_for_ever_for_those_who_use_the_streams(stand: Stand) -> None:
    stand.resource("two", uses="one")
    await deleted(stand)
    with pytest.raises(NotYet, match="Waiting for"):
        await stand.run()
    stand.settings = OperatorSettings(STREAM_REMOVAL_SECONDS=1)
    stand.restart()
    await stand.run()
    assert stand.remover.asked == []
    assert stand.api.names("fakes") == ["two"]
    assert "Fake two" in dict(stand.api.events())["StreamsLeft"]


async def test_deletion_says_why_it_waits(stand: Stand) -> None:
    await deleted(stand)
    stand.remover.error = NotYet("no NATS server answers")
    for _ in range(2):
        with pytest.raises(NotYet):
            await stand.run()
    assert stand.status["message"] == "no NATS server answers"
    stand.remover.error = None
    await stand.run()
    assert stand.api.names("fakes") == []


async def test_deletion_does_not_wait_for_ever(stand: Stand) -> None:
    await deleted(stand)
    stand.settings = OperatorSettings(STREAM_REMOVAL_SECONDS=1)  # it was deleted on the first day of 2026
    stand.remover.error = NotYet("no NATS server answers")
    stand.restart()
    await stand.run()
    assert stand.api.names("fakes") == []
    reason, note = stand.api.events()[-1]
    assert reason == "StreamsLeft"
    assert "by hand" in note

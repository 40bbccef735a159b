"""The versions of one instance: the manifest keeps the one accepted last, in whatever order they come."""

import json
from dataclasses import replace

import pytest

from imaging_services.domain.errors import InvalidInput, Superseded
from imaging_services.domain.events.envelope import ACCEPTED_AT, CloudEvent
from imaging_services.domain.manifest.query import Scope
from support.manifest_events import stored
from support.manifests import opened, published


@pytest.fixture(params=["memory", "postgres"])
async def manifest(request):
    async with opened(request.param, request) as manifest:
        yield manifest


def version(content: str, accepted: int | None, instance: str = "1.2.1.1") -> CloudEvent:
    """A version of an instance that was accepted in that minute of the hour; None: when it is recorded."""
    order = {} if accepted is None else {ACCEPTED_AT: f"2024-05-06T10:{accepted:02}:00+00:00"}
    return replace(stored("1.2", "1.2.1", instance, content=content), extensions=order)


async def content_of(manifest, *versions: CloudEvent) -> list[str]:
    """Which of the versions are recorded."""
    names = {location.object_name for location in await manifest.locate(Scope("1.2"))}
    return [one.id for one in versions if json.loads(one.data)["store"]["objectName"] in names]


async def test_an_older_version_never_replaces_a_newer_one(manifest):
    old, new, newest = (version(content, minute) for content, minute in (("old", 1), ("new", 2), ("newest", 3)))
    assert await manifest.record([new]) == [None]
    (refused,) = await manifest.record([old])
    assert isinstance(refused, Superseded)
    assert "accepted at 10:02:00, later than this one" in str(refused)
    assert await content_of(manifest, old, new) == [new.id]
    assert len(await published(manifest)) == 2
    assert await manifest.record([newest]) == [None]
    assert await content_of(manifest, old, new, newest) == [newest.id]


async def test_a_batch_in_the_wrong_order_ends_with_the_newest_version(manifest):
    other = stored("1.2", "1.2.1", "1.2.1.2")
    batch = [version("new", 2), version("old", 1), other, version("newest", 3), version("new", 2), version("old", 1)]
    results = await manifest.record(batch)
    assert [type(result) for result in results] == [type(None), Superseded, *[type(None)] * 3, Superseded]
    assert await content_of(manifest, *batch[:4]) == [other.id, batch[3].id]
    assert (await manifest.counts()).instances == 2


async def test_a_version_that_was_recorded_in_its_time_may_come_again(manifest):
    old, new = version("old", 1), version("new", 2)
    await manifest.record([old])
    await manifest.record([new])
    await published(manifest)
    assert await manifest.record([old]) == [None]
    assert await content_of(manifest, old, new) == [new.id]
    assert await published(manifest) == []
    (refused,) = await manifest.record([version("never seen", 1)])
    assert isinstance(refused, Superseded)


@pytest.mark.parametrize("together", [True, False])
async def test_a_version_sent_again_is_as_new_as_its_last_sending(manifest, together):
    first, again, between = version("a", 1), version("a", 3), version("b", 2)
    events = [first, again, between]
    results = []
    for batch in [events] if together else [[event] for event in events]:
        results += await manifest.record(batch)
    assert [type(result) for result in results] == [type(None), type(None), Superseded]
    assert await content_of(manifest, first, between) == [first.id]


async def test_what_names_no_time_of_acceptance_is_accepted_when_it_is_recorded(manifest):
    unnamed, queued = version("direct", None), version("queued long ago", 1)
    assert await manifest.record([unnamed]) == [None]
    (refused,) = await manifest.record([queued])
    assert isinstance(refused, Superseded)
    another = version("direct again", None)
    assert await manifest.record([another]) == [None]
    assert await content_of(manifest, unnamed, queued, another) == [another.id]


@pytest.mark.parametrize("time", ["yesterday", "2024-05-06T10:00:00", ""])
async def test_a_time_of_acceptance_that_is_none_is_refused(manifest, time):
    event = replace(stored("1.2", "1.2.1", "1.2.1.1"), extensions={ACCEPTED_AT: time})
    (refused,) = await manifest.record([event])
    assert isinstance(refused, InvalidInput)

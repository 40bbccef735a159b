"""What every manifest does, whatever it is made of: recording, announcing, revising, holding."""

import asyncio
import json
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from imaging_services.domain.errors import BackendUnavailable, Conflict, InvalidInput, MissingIdentifier, Superseded
from imaging_services.domain.events.envelope import (
    ACCEPTED_AT,
    DICOM_AVAILABLE,
    IMAGE_STORED,
    PRIORITY,
    STUDY_REVISION,
    URGENT,
    CloudEvent,
    event_id,
    is_urgent,
)
from imaging_services.domain.manifest.query import Level, Query, Scope
from imaging_services.domain.ports import Counts
from support.manifest_events import MR, stored
from support.manifests import opened, published, query_api

QUIET = timedelta(0)


@pytest.fixture(params=["memory", "postgres"])
async def manifest(request):
    async with opened(request.param, request) as manifest:
        yield manifest


@pytest.fixture(params=["memory", "postgres", "http"])
async def holds(request):
    """The manifest, and who holds studies: itself, or a client of its query API."""
    kind = "postgres" if request.param == "http" else request.param
    async with opened(kind, request) as manifest:
        if request.param != "http":
            yield manifest, manifest
            return
        async with query_api(manifest) as client:
            yield manifest, client


async def revision(manifest) -> dict | None:
    """The one revision that is due, or None."""
    await manifest.revise(QUIET)
    made = [json.loads(event.data) for event in await published(manifest) if event.type == STUDY_REVISION]
    assert len(made) <= 1
    return made[0] if made else None


async def test_a_new_instance_is_announced_once(manifest):
    event = stored("1.2", "1.2.1", "1.2.1.1")
    assert await manifest.record([event]) == [None]
    first, second = await published(manifest)
    assert first == event
    assert second.type == DICOM_AVAILABLE
    assert second.source == "processor.test"
    digest = json.loads(event.data)["store"]["digest"]
    assert second.id == event_id(DICOM_AVAILABLE, "north", "1.2", "1.2.1", "1.2.1.1", digest)
    assert json.loads(second.data) == {
        "provider": "north",
        "endpoint": "http://north.internal/wado-rs/studies/1.2/series/1.2.1/instances/1.2.1.1",
    }
    assert await manifest.counts() == Counts(1, 1, 1, 2)


async def test_extensions_go_on_to_what_follows(manifest):
    """They name the bridge an event came by; without them it would go back where it came from."""
    event = replace(stored("1.2", "1.2.1", "1.2.1.1"), extensions={"bridgeorigin": "edge1"})
    assert await manifest.record([event]) == [None]
    assert [made.extensions for made in await published(manifest)] == [event.extensions, event.extensions]


async def test_the_same_bytes_again_change_nothing(manifest):
    event = stored("1.2", "1.2.1", "1.2.1.1")
    await manifest.record([event, event])
    before = await manifest.locate(Scope("1.2"))
    assert len(await published(manifest)) == 2
    assert await revision(manifest)
    again = CloudEvent(event.type, "another.source", "another-id", event.data)
    assert await manifest.record([again]) == [None]
    assert await published(manifest) == []
    assert await revision(manifest) is None
    assert await manifest.locate(Scope("1.2")) == before


async def test_other_bytes_are_a_modification(manifest):
    await manifest.record([stored("1.2", "1.2.1", "1.2.1.1"), stored("1.2", "1.2.1", "1.2.1.2")])
    assert (await revision(manifest))["changeSet"]["additions"] == ["1.2.1/1.2.1.1", "1.2.1/1.2.1.2"]
    (before,) = await manifest.locate(Scope("1.2", "1.2.1", "1.2.1.1"))
    changed = stored("1.2", "1.2.1", "1.2.1.1", content="second", sop_class=MR)
    assert await manifest.record([changed]) == [None]
    assert [event.type for event in await published(manifest)] == [IMAGE_STORED, DICOM_AVAILABLE]
    (after,) = await manifest.locate(Scope("1.2", "1.2.1", "1.2.1.1"))
    assert after.object_name == json.loads(changed.data)["store"]["objectName"] != before.object_name
    assert after.last_modified > before.last_modified
    assert (await manifest.counts()).instances == 2
    second = await revision(manifest)
    assert second["revision"] == 1
    assert second["changeSet"] == {"additions": [], "deletions": [], "modifications": ["1.2.1/1.2.1.1"]}


async def test_what_changes_back_is_announced_with_another_id(manifest):
    first, second = (stored("1.2", "1.2.1", "1.2.1.1", content=content) for content in ("first", "second"))
    for event in (first, second, first):
        assert await manifest.record([event]) == [None]
    ids = [event.id for event in await published(manifest)]
    assert len(ids) == len(set(ids)) == 6


async def test_a_batch_keeps_the_order_of_one_instance(manifest):
    events = [stored("1.2", "1.2.1", "1.2.1.1", content=content) for content in ("a", "b", "b", "c", "a")]
    assert await manifest.record(events) == [None] * 5
    (location,) = await manifest.locate(Scope("1.2"))
    assert location.object_name == json.loads(events[0].data)["store"]["objectName"]
    announced = [event for event in await published(manifest) if event.type == IMAGE_STORED]
    assert [event.data for event in announced] == [events[index].data for index in (0, 1, 3, 4)]


async def test_a_series_belongs_to_one_provider(manifest):
    ours, theirs = stored("1.2", "1.2.1", "1.2.1.1"), stored("1.2", "1.2.1", "1.2.1.2", provider="south")
    elsewhere = stored("1.3", "1.2.1", "1.2.1.3", provider="south")
    results = await manifest.record([ours, theirs, theirs, elsewhere])
    assert results[0] is None
    assert [type(result) for result in results[1:]] == [Conflict, Conflict, Conflict]
    (again,) = await manifest.record([stored("1.2", "1.2.1", "1.2.1.1", provider="south")])
    assert isinstance(again, Conflict)
    assert "north" in str(again)
    assert await manifest.counts() == Counts(1, 1, 1, 0)
    assert await manifest.search(Query(Level.STUDY, filters={"0020000D": ("1.3",)})) == []


async def test_instances_of_one_uid_in_two_studies_are_both_kept(manifest):
    assert await manifest.record([stored("1.2", "1.2.1", "9.9"), stored("1.3", "1.3.1", "9.9")]) == [None, None]
    assert len(await manifest.search(Query(Level.IMAGE, filters={"00080018": ("9.9",)}))) == 2


NUL, LONG = "\x00", "x" * 5000
BAD = {
    "no UID": (stored("", "1.2.1", "1.2.1.9"), MissingIdentifier),
    "a UID with letters": (stored("1.2", "one.two", "1.2.1.9"), MissingIdentifier),
    "NUL in the provider": (stored("1.2", "1.2.1", "1.2.1.9", provider="no\x00rth"), InvalidInput),
    "NUL in the object name": (stored("1.2", "1.2.1", "1.2.1.9", store={"objectName": "a\x00b"}), InvalidInput),
    "a size beyond all sizes": (stored("1.2", "1.2.1", "1.2.1.9", store={"size": 2**80}), InvalidInput),
    "a size below zero": (stored("1.2", "1.2.1", "1.2.1.9", store={"size": -1}), InvalidInput),
    "a number as text": (stored("1.2", "1.2.1", "1.2.1.9", attributes={"00100010": 5}), InvalidInput),
    "a half surrogate": (
        CloudEvent(IMAGE_STORED, "s", "i", stored("1.2", "1.2.1", "1.2.1.9").data.replace(b"north", b"\\ud800")),
        InvalidInput,
    ),
    "no JSON": (CloudEvent(IMAGE_STORED, "s", "i", b'{"image": '), InvalidInput),
    "a JSON list": (CloudEvent(IMAGE_STORED, "s", "i", b"[1, 2]"), InvalidInput),
    "no store": (CloudEvent(IMAGE_STORED, "s", "i", b'{"image": {"elements": []}}'), InvalidInput),
    "an unknown type": (CloudEvent("PatientMerged", "s", "i", b"{}"), InvalidInput),
    "no id": (CloudEvent(IMAGE_STORED, "s", "", stored("1.2", "1.2.1", "1.2.1.9").data), InvalidInput),
    "a revision without study": (CloudEvent(STUDY_REVISION, "s", "i", b"{}"), InvalidInput),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_event_refuses_only_itself(manifest, name):
    bad, expected = BAD[name]
    results = await manifest.record([stored("1.2", "1.2.1", "1.2.1.1"), bad, stored("1.2", "1.2.1", "1.2.1.2")])
    assert [type(result) for result in results] == [type(None), expected, type(None)]
    assert (await manifest.counts()).instances == 2


async def test_odd_values_are_recorded_without_what_no_database_holds(manifest):
    odd = {
        "00100010": f"Doe^Jo{NUL}hn{NUL}",
        "00100020": LONG,
        "00080020": "not a date",
        "00100030": "1970.01.02",
        "00080030": "25",
        "00200011": "99999999999999999999",
        "00200013": "one",
        "00281050": ["1e999", "40"],
        "00101000": [str(number) for number in range(100)],
    }
    assert await manifest.record([stored("1.2", "1.2.1", "1.2.1.1", attributes=odd)]) == [None]
    (found,) = await manifest.search(Query(Level.IMAGE, include_all=True))
    assert found["00100010"]["Value"] == [{"Alphabetic": "Doe^John"}]
    assert found["00100030"]["Value"] == ["19700102"]
    assert found["00080020"]["Value"] == ["not a date"]
    assert found["00200011"]["Value"] == ["99999999999999999999"]
    assert found["00281050"]["Value"] == ["1e999", 40]
    assert len(found["00100020"]["Value"][0]) == 1000
    assert await manifest.search(Query(Level.STUDY, filters={"00080020": ("19000101-20991231",)})) == []


async def test_other_types_are_only_queued(manifest):
    data = json.dumps({"provider": "north", "endpoint": "http://x/wado-rs/studies/1"}).encode()
    event = CloudEvent(DICOM_AVAILABLE, "edge", "id-1", data, extensions={"traceparent": "00-1"})
    assert await manifest.record([event]) == [None]
    assert await published(manifest) == [event]
    assert await manifest.counts() == Counts(0, 0, 0, 1)


async def test_the_first_instance_sets_and_later_ones_fill(manifest):
    await manifest.record([stored("1.2", "1.2.1", "1.2.1.1", attributes={"00100010": "Doe^John", "00080060": "CT"})])
    later = {"00100010": "Other^Name", "00100020": "P1", "00080060": "MR", "0008103E": "Thorax"}
    await manifest.record([stored("1.2", "1.2.1", "1.2.1.2", attributes=later)])
    (found,) = await manifest.search(Query(Level.SERIES, include=frozenset({"00100010", "00100020"})))
    assert found["00100010"]["Value"] == [{"Alphabetic": "Doe^John"}]
    assert found["00100020"]["Value"] == ["P1"]
    assert found["00080060"]["Value"] == ["CT"]
    assert found["0008103E"]["Value"] == ["Thorax"]
    assert len(await manifest.search(Query(Level.STUDY, filters={"00100020": ("P1",), "00100010": ("doe*",)}))) == 1
    assert await manifest.search(Query(Level.STUDY, filters={"00100010": ("Other*",)})) == []


async def test_a_revision_tells_the_whole_study(manifest):
    study = {"00080020": "20240102", "00100010": "Doe^John", "00080050": "A1"}
    events = [
        stored("1.2", "1.2.2", "1.2.2.1", attributes=study | {"00200011": "2", "00080060": "MR"}, provider="south"),
        stored("1.2", "1.2.1", "1.2.1.10", attributes=study | {"00200011": "1", "00080060": "CT", "00200013": "10"}),
        stored("1.2", "1.2.1", "1.2.1.9", attributes=study | {"00200011": "1", "00080060": "CT", "00200013": "9"}),
        stored("1.2", "1.2.1", "1.2.1.1", attributes=study | {"00200011": "1", "00080060": "CT"}),
    ]
    await manifest.record(events)
    made = await revision(manifest)
    assert made["revision"] == 0
    assert made["study"]["studyInstanceUID"] == "1.2"
    assert made["study"]["studyDate"] == "20240102"
    attributes = {item["group"] + item["element"]: item for item in made["study"]["attributes"]}
    assert attributes["00100010"]["value"] == "Doe^John"
    assert attributes["00080061"]["values"] == ["CT", "MR"]
    first, second = made["study"]["series"]
    assert (first["number"], first["modality"], first["providerName"]) == (1, "CT", "north")
    assert first["endpoint"] == "https://north.example.org/wado-rs/studies/1.2/series/1.2.1"
    assert second["endpoint"] == "https://south.example.org/wado-rs/studies/1.2/series/1.2.2"
    assert [(one["sopInstanceUID"], one["number"]) for one in first["instances"]] == [
        ("1.2.1.9", 9),
        ("1.2.1.10", 10),
        ("1.2.1.1", None),
    ]
    assert sorted(made["changeSet"]["additions"]) == [
        "1.2.1/1.2.1.1",
        "1.2.1/1.2.1.10",
        "1.2.1/1.2.1.9",
        "1.2.2/1.2.2.1",
    ]


async def test_revisions_count_up_and_list_what_is_new(manifest):
    await manifest.record([stored("1.2", "1.2.1", "1.2.1.1")])
    assert (await revision(manifest))["revision"] == 0
    assert await revision(manifest) is None
    await manifest.record([stored("1.2", "1.2.1", "1.2.1.2"), stored("1.2", "1.2.1", "1.2.1.2", content="changed")])
    second = await revision(manifest)
    assert second["revision"] == 1
    assert second["changeSet"] == {"additions": ["1.2.1/1.2.1.2"], "deletions": [], "modifications": []}
    assert len(second["study"]["series"][0]["instances"]) == 2


async def test_an_urgent_instance_makes_the_next_revision_of_its_study_urgent_and_not_the_one_after(manifest):
    urgent = replace(stored("1.2", "1.2.1", "1.2.1.2"), extensions={PRIORITY: URGENT})
    for events, marks in [
        ([stored("1.2", "1.2.1", "1.2.1.1"), stored("1.3", "1.3.1", "1.3.1.1")], {"1.2": False, "1.3": False}),
        ([urgent, stored("1.3", "1.3.1", "1.3.1.2")], {"1.2": True, "1.3": False}),
        ([urgent], {}),  # known already: nothing to tell
        ([stored("1.2", "1.2.1", "1.2.1.3")], {"1.2": False}),
    ]:
        await manifest.record(events)
        await manifest.revise(QUIET)
        made = [event for event in await published(manifest) if event.type == STUDY_REVISION]
        assert {json.loads(one.data)["study"]["studyInstanceUID"]: is_urgent(one) for one in made} == marks


async def test_an_urgent_instance_that_is_no_news_makes_no_revision_urgent(manifest):
    """Nothing of it is announced ahead of the others, and a revision is to come behind the images that it tells of."""
    accepted = {ACCEPTED_AT: "2026-11-21T10:00:00+00:00"}
    known, doubled = stored("1.2", "1.2.1", "1.2.1.1"), stored("1.3", "1.3.1", "1.3.1.1")
    later = replace(stored("1.4", "1.4.1", "1.4.1.1"), extensions=accepted)
    earlier = replace(
        stored("1.4", "1.4.1", "1.4.1.1", content="older"),
        extensions={ACCEPTED_AT: "2026-11-21T09:00:00+00:00", PRIORITY: URGENT},
    )
    urgently = {PRIORITY: URGENT}
    await manifest.record([known, later])
    outcomes = await manifest.record(
        [replace(known, extensions=urgently), doubled, replace(doubled, extensions=urgently), earlier]
    )
    assert [type(one) for one in outcomes] == [type(None)] * 3 + [Superseded]
    await manifest.revise(QUIET)
    made = await published(manifest)
    assert len([event for event in made if event.type == STUDY_REVISION]) == 3
    assert not any(map(is_urgent, made))


async def test_a_study_is_revised_only_when_it_is_quiet(manifest):
    await manifest.record([stored("1.2", "1.2.1", "1.2.1.1")])
    assert await manifest.revise(timedelta(minutes=1)) == 0
    assert await manifest.revise(QUIET) == 1


async def test_an_open_association_holds_its_studies_back(holds):
    manifest, holder = holds
    await holder.hold("a/1 ü", "1.2", timedelta(minutes=1))
    await manifest.record([stored("1.2", "1.2.1", "1.2.1.1"), stored("1.3", "1.3.1", "1.3.1.1")])
    assert await manifest.revise(QUIET) == 1
    await holder.release("a/1 ü")
    assert await manifest.revise(QUIET) == 1


async def test_a_released_association_holds_nothing_any_more(holds):
    manifest, holder = holds
    await holder.release("a")
    await holder.hold("a", "1.2", timedelta(minutes=1))
    await holder.renew("a", timedelta(minutes=1))
    await manifest.record([stored("1.2", "1.2.1", "1.2.1.1")])
    assert await manifest.revise(QUIET) == 1


async def test_a_hold_lapses_unless_it_is_renewed(holds):
    manifest, holder = holds
    await manifest.record([stored("1.2", "1.2.1", "1.2.1.1"), stored("1.3", "1.3.1", "1.3.1.1")])
    for association, study in (("renewed", "1.2"), ("silent", "1.3")):
        await holder.hold(association, study, timedelta(milliseconds=500))
    await holder.renew("renewed", timedelta(minutes=10))
    async with asyncio.timeout(60):
        while not (revised := await manifest.revise(QUIET)):
            await asyncio.sleep(0.1)
    assert revised == 1
    assert json.loads((await published(manifest))[-1].data)["study"]["studyInstanceUID"] == "1.3"


async def test_events_stay_until_they_are_published(manifest):
    await manifest.record([stored("1.2", "1.2.1", f"1.2.1.{number}") for number in range(5)])

    async def away(_):
        raise BackendUnavailable("the log is away")

    with pytest.raises(BackendUnavailable):
        await manifest.publish_pending(away)
    assert len(await published(manifest)) == 10
    assert await manifest.publish_pending(away) == 0


async def test_an_event_refused_by_the_log_does_not_stop_the_others(manifest):
    await manifest.record([stored("1.2", "1.2.1", f"1.2.1.{number}") for number in range(3)])
    taken = []

    async def choosy(events):
        if any(b"1.2.1.1/" in event.data or event.data.endswith(b'1.2.1.1"}') for event in events):
            raise InvalidInput("too long for the log")
        taken.extend(events)

    assert await manifest.publish_pending(choosy) == 6
    assert Counter(event.type for event in taken) == {IMAGE_STORED: 3, DICOM_AVAILABLE: 2}
    assert await manifest.publish_pending(choosy) == 0
    assert (await manifest.counts()).events == 5


async def test_locate_goes_by_provider_and_order(manifest):
    events = [
        stored("1.2", "1.2.2", "1.2.2.1", attributes={"00200011": "2"}, provider="south"),
        stored("1.2", "1.2.1", "1.2.1.2", attributes={"00200011": "1", "00200013": "2"}),
        stored("1.2", "1.2.1", "1.2.1.1", attributes={"00200011": "1", "00200013": "1"}),
    ]
    await manifest.record(events)
    everything = await manifest.locate(Scope("1.2"))
    assert [one.sop_instance_uid for one in everything] == ["1.2.1.1", "1.2.1.2", "1.2.2.1"]
    assert [one.sop_instance_uid for one in await manifest.locate(Scope("1.2", provider="south"))] == ["1.2.2.1"]
    assert await manifest.locate(Scope("1.2", "1.2.1", "1.2.1.1", provider="south")) == []
    assert await manifest.locate(Scope("1.4")) == []
    (one,) = await manifest.locate(Scope("1.2", "1.2.1", "1.2.1.1"))
    assert (one.provider, one.bucket_name, one.size, one.pixel_data_offset) == ("north", "north-images", 1000, 600)
    assert one.object_name == f"{one.digest}.dcm"

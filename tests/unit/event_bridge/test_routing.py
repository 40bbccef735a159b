"""Where events go, for every origin and role: none comes back, none goes on for ever."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imaging_services.apps.event_bridge.routing import HOPS, HUB, from_edge, from_hub, stamped
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.events.envelope import BRIDGE_ORIGIN
from support.events import an_event

_EDGES = ("north", "south", "east")
_LOCATIONS = {f"{edge} clinic": edge for edge in _EDGES}


@given(st.sampled_from([HUB, *_EDGES]), st.sampled_from([None, *_LOCATIONS]))
def test_an_event_reaches_each_site_at_most_once_and_never_its_own(start: str, target: str | None) -> None:
    event = an_event(target=target) if target else an_event()
    arrivals: list[str] = []
    under_way = [(start, event)]
    while under_way:
        site, here = under_way.pop()
        for mailbox in from_hub(here, _LOCATIONS) if site == HUB else from_edge(here):
            arrivals.append(mailbox)
            under_way.append((mailbox, stamped(here, site)))
    assert start not in arrivals
    assert len(arrivals) == len(set(arrivals))
    expected = set(_EDGES) if target is None else {_LOCATIONS[target]}
    assert set(arrivals) == (expected | {HUB}) - {start}


def test_the_stamp_keeps_the_event_and_its_origin() -> None:
    event = replace(an_event(), extensions={"traceparent": "00-1"})
    once = stamped(event, "north")
    twice = stamped(once, HUB)
    assert once.extensions == {"traceparent": "00-1", BRIDGE_ORIGIN: "north", HOPS: "1"}
    assert twice.extensions == {"traceparent": "00-1", BRIDGE_ORIGIN: "north", HOPS: "2"}
    assert replace(twice, extensions=event.extensions) == event


@pytest.mark.parametrize("data", [b'["target"]', b'{"target":{"x":1}}', b'{"a":"target"}', b'"target"'])
def test_only_a_text_member_is_a_target(data: bytes) -> None:
    assert set(from_hub(replace(an_event(), data=data), _LOCATIONS)) == set(_EDGES)


def test_two_locations_of_one_mailbox_are_one() -> None:
    assert from_hub(an_event(), {"Ward 1": "north", "Ward 2": "north"}) == ("north",)


@pytest.mark.parametrize("extensions", [{"target": "nowhere"}, {HOPS: "many"}])
def test_what_cannot_be_routed_is_refused(extensions: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        from_hub(replace(an_event(), extensions=extensions), _LOCATIONS)

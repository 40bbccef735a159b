"""What the proxy accepts, and the associations to its target that it keeps and asks."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from imaging_services.adapters.memory.dicom_peer import MemoryPeer
from imaging_services.adapters.memory.relay import MemoryRelayBus
from imaging_services.apps.dimse_proxy import deliver
from imaging_services.apps.dimse_proxy import kept as kept_module
from imaging_services.apps.dimse_proxy.deliver import TargetHandler
from imaging_services.apps.dimse_proxy.hearing import Hearing
from imaging_services.apps.dimse_proxy.kept import KeptAssociations
from imaging_services.apps.dimse_proxy.relay import ProxyHandler
from imaging_services.domain.dicom.command_set import CommandField, request
from imaging_services.domain.dicom.dimse import (
    AssociationRequest,
    DimseResponse,
    Negotiated,
    ProposedContext,
    Rejection,
    Requestor,
    Role,
)
from imaging_services.domain.errors import BackendUnavailable, OutOfResources, UnsupportedSopClass
from imaging_services.domain.relay.admission import Admission
from imaging_services.domain.relay.messages import AssociationNotice, AssociationState, Call, Origin
from imaging_services.domain.relay.services import STORAGE_COMMITMENT_PUSH
from support.dimse import CT, IMPLICIT, STUDY_ROOT_FIND, Recorder, eventually
from support.scripted_services import MPPS
from support.scripted_services import PRINT as FILM

UPS = "1.2.840.10008.5.1.4.34.6.1"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
CONTEXTS = tuple(ProposedContext(2 * n + 1, uid, (IMPLICIT,)) for n, uid in enumerate((CT, STUDY_ROOT_GET)))
REQUEST = AssociationRequest(
    "a", "CT", "PROXY", CONTEXTS, 0, "peer:1", {CT: Role(scu=False, scp=True)}, {STUDY_ROOT_FIND: b"\1"}
)


class Link:
    """The other end accepts everything, or is away."""

    def __init__(self, *, away: bool = False) -> None:
        self.away = away

    async def negotiate(self, request: AssociationRequest) -> Negotiated | Rejection:
        if self.away:
            raise BackendUnavailable("nobody listens")
        accepted = {one.context_id: one.transfer_syntaxes[0] for one in request.contexts}
        return Negotiated(accepted, roles=request.roles, extended=request.extended)


def proxy(link: Any, *, confirmed: bool) -> ProxyHandler:
    admission = Admission(frozenset(), check_called=False)
    return ProxyHandler(
        link, admission, lambda _: Negotiated({1: IMPLICIT, 3: IMPLICIT}), confirmed=confirmed, lease_seconds=60
    )


@pytest.mark.parametrize("confirmed", [False, True])
async def test_roles_and_extended_negotiation_are_passed_on(confirmed: bool) -> None:
    decision = await proxy(Link(), confirmed=confirmed).negotiate(REQUEST)
    accepted = {1: IMPLICIT, 3: IMPLICIT}
    assert decision == Negotiated(accepted, roles=REQUEST.roles, extended=REQUEST.extended)


async def test_without_the_far_side_no_extended_negotiation_is_accepted() -> None:
    decision = await proxy(Link(away=True), confirmed=False).negotiate(REQUEST)
    assert decision == Negotiated({1: IMPLICIT, 3: IMPLICIT}, roles=REQUEST.roles)


async def test_what_the_target_accepts_holds_for_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(deliver.time, "monotonic", lambda: now)
    target = Recorder(accept=lambda _: Negotiated({1: IMPLICIT}, roles={CT: Role(scu=False, scp=True)}))
    peer = MemoryPeer(target)
    handler = TargetHandler(peer, Unused(), Unused().report, calling="PROXY", called="PACS")
    for _ in range(3):
        expected = Negotiated({1: IMPLICIT}, roles={CT: Role(scu=False, scp=True)})
        assert await handler.negotiate(REQUEST) == expected
    assert len(peer.associations) == 1
    now += 11
    await handler.negotiate(REQUEST)
    assert len(peer.associations) == 2
    assert not any(one.is_open for one in peer.associations)


class Unused:
    """A pool for a test that stores nothing."""

    async def store(self, *_: Any, **__: Any) -> Any:
        raise AssertionError

    async def report(self, *_: Any) -> Any:
        raise AssertionError


def opening(peer: MemoryPeer) -> Callable[[], Awaitable[Requestor]]:
    nothing: Mapping[str, Any] = {}

    async def associate() -> Requestor:
        return await peer.associate(
            calling_ae_title="A", called_ae_title="B", contexts=CONTEXTS, roles=nothing, extended=nothing
        )

    return associate


async def test_kept_associations_serve_one_request_at_a_time_and_end_with_theirs() -> None:
    peer, kept = MemoryPeer(Recorder()), KeptAssociations(60)
    using, most = 0, 0

    async def use(association_id: str) -> None:
        nonlocal using, most
        async with kept.using((association_id, CT, IMPLICIT), opening(peer)):
            using += 1
            most = max(most, using)
            await asyncio.sleep(0)
            using -= 1

    await asyncio.gather(*(use("a") for _ in range(5)))
    assert (len(peer.associations), most) == (1, 1)
    await use("b")
    await kept.release("a")
    assert [one.is_open for one in peer.associations] == [False, True]
    await use("a")
    assert len(peer.associations) == 3
    await kept.close()
    assert not any(one.is_open for one in peer.associations)


async def test_a_kept_association_that_fails_or_rests_is_not_kept() -> None:
    peer, kept = MemoryPeer(Recorder()), KeptAssociations(0, most=1)
    with pytest.raises(BackendUnavailable):
        async with kept.using(("a", CT, IMPLICIT), opening(peer)):
            raise BackendUnavailable("printer gone")
    assert [one.is_open for one in peer.associations] == [False]
    async with kept.using(("a", CT, IMPLICIT), opening(peer)):
        with pytest.raises(OutOfResources):
            async with kept.using(("b", CT, IMPLICIT), opening(peer)):
                pass
    async with kept.using(("c", CT, IMPLICIT), opening(peer)):  # nobody has used the other one for 0 seconds
        assert [one.is_open for one in peer.associations] == [False, False, True]
    await kept.close()


async def test_a_kept_association_that_the_target_has_ended_is_opened_again() -> None:
    peer, kept = MemoryPeer(Recorder()), KeptAssociations(60)
    for _ in range(2):
        async with kept.using(("a", CT), opening(peer)):
            pass
        await peer.associations[-1].abort()
    assert len(peer.associations) == 2
    await kept.close()


async def test_one_that_fails_while_it_is_released_does_not_make_its_successor_forgotten() -> None:
    peer, kept = MemoryPeer(Recorder()), KeptAssociations(60)

    async def fail() -> None:
        async with kept.using(("a", CT), opening(peer)):
            releasing = asyncio.create_task(kept.release("a"))
            await asyncio.sleep(0)
            async with kept.using(("a", CT), opening(peer)):
                begun.append(releasing)
            raise BackendUnavailable("archive gone")

    begun: list[asyncio.Task[None]] = []
    with pytest.raises(BackendUnavailable):
        await fail()
    await begun[0]
    await kept.close()
    assert [one.is_open for one in peer.associations] == [False, False]


async def test_one_that_the_target_has_ended_makes_room() -> None:
    peer, kept = MemoryPeer(Recorder()), KeptAssociations(60, most=1)
    async with kept.using(("a", CT), opening(peer)):
        pass
    await peer.associations[0].abort()
    async with kept.using(("b", CT), opening(peer)):
        assert peer.associations[1].is_open
    await kept.close()


async def test_a_kept_association_that_nobody_uses_is_released_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_module, "_SHORTEST_PAUSE", 0.01)
    peer, kept = MemoryPeer(Recorder()), KeptAssociations(0.05)
    async with kept.using(("a", CT), opening(peer)):
        pass
    await eventually(lambda: not peer.associations[0].is_open)
    await kept.close()


def asking(uid: str, syntax: str = IMPLICIT, **more: Any) -> Call:
    command = request(CommandField.N_ACTION_RQ, uid, message_id=9)
    return Call(Origin("near", "MODALITY", "PROXY"), uid, syntax, command, **more)


@pytest.mark.parametrize("end", [AssociationState.LEFT, AssociationState.CLOSED])
async def test_all_that_is_asked_by_dimse_n_goes_over_one_association_and_events_come_back(
    end: AssociationState,
) -> None:
    """Those of a film over another one; a service that the target does not have ends neither."""
    target = Recorder(accept=lambda asked: Negotiated({one.context_id: IMPLICIT for one in asked.contexts[:2]}))
    peer, reports = MemoryPeer(target), []

    async def report(call: Call, data: bytes | None) -> DimseResponse:
        reports.append((call.origin.association_id, call.abstract_syntax, data))
        if len(reports) == 2:
            raise BackendUnavailable("gone")
        return DimseResponse(call.command.response(0x0107), b"reply")

    handler = TargetHandler(peer, Unused(), report, calling="PROXY", called="PACS")
    hears = tuple((uid, IMPLICIT) for uid in (STORAGE_COMMITMENT_PUSH, MPPS, UPS, FILM))
    for uid in (STORAGE_COMMITMENT_PUSH, MPPS, FILM):
        assert [one.command.status async for one in handler.serve(asking(uid, hears=hears), None)] == [0]
    with pytest.raises(UnsupportedSopClass):
        _ = [one async for one in handler.serve(asking(UPS, hears=hears), None)]
    assert [one.is_open for one in peer.associations] == [True, True]
    backward = peer.associations[0].association.sub_operations
    assert backward is not None
    event = request(CommandField.N_EVENT_REPORT_RQ, STORAGE_COMMITMENT_PUSH, has_data_set=True)
    context_id = next(
        key for key, one in peer.associations[0].contexts.items() if one.abstract_syntax == event.sop_class_uid
    )
    first, second = [await backward.request(context_id, event, b"report") for _ in range(2)]
    assert (first.command.status, first.data, second.command.status) == (0x0107, b"reply", 0x0110)
    assert reports[0] == ("near", STORAGE_COMMITMENT_PUSH, b"report")
    await handler.noticed(AssociationNotice(asking(UPS).origin, end, 60))
    assert [one.is_open for one in peer.associations] == [False, False]


async def test_an_event_report_waits_for_the_response_before_it() -> None:
    association = MemoryPeer(Recorder())
    one = await opening(association)()
    del one
    hearing = Hearing(association.associations[0].association)
    bus = MemoryRelayBus()
    near, far = bus.end("A"), bus.end("B")
    event = replace(asking(CT), command=request(CommandField.N_EVENT_REPORT_RQ, CT))
    called = replace(event, origin=Origin(association.associations[0].association.association_id, "A", "B"))
    async with hearing.asking(near):
        reporting = asyncio.create_task(far.report(called, None))
        await asyncio.sleep(0.05)
        assert not reporting.done()
    assert (await reporting).command.status == 0x0110  # answered by the requestor, which takes none
    await hearing.close()
    with pytest.raises(BackendUnavailable, match="not open"):
        await far.report(called, None)

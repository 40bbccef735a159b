"""What the proxy accepts, and the associations to its target that it keeps and asks."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from imaging_services.adapters.memory.dicom_peer import MemoryPeer
from imaging_services.apps.dimse_proxy import deliver
from imaging_services.apps.dimse_proxy.deliver import TargetHandler
from imaging_services.apps.dimse_proxy.kept import KeptAssociations
from imaging_services.apps.dimse_proxy.relay import ProxyHandler
from imaging_services.domain.dicom.dimse import (
    AssociationRequest,
    Negotiated,
    ProposedContext,
    Rejection,
    Requestor,
    Role,
)
from imaging_services.domain.errors import BackendUnavailable, OutOfResources
from imaging_services.domain.relay.admission import Admission
from support.dimse import CT, IMPLICIT, STUDY_ROOT_FIND, Recorder

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
    handler = TargetHandler(peer, Unused(), calling="PROXY", called="PACS")
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

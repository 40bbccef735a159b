"""The proxy tells the far side of an association's end behind its instances, however long that takes."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from imaging_services.apps.dimse_proxy import relay
from imaging_services.apps.dimse_proxy.relay import ProxyHandler
from imaging_services.domain.dicom.command_set import CommandField, request, store_request
from imaging_services.domain.dicom.dimse import Cancellation, DimseResponse, StoreAnswer
from imaging_services.domain.errors import BackendUnavailable
from imaging_services.domain.relay.admission import Admission
from imaging_services.domain.relay.messages import AssociationState
from imaging_services.domain.relay.services import STORAGE_COMMITMENT_PUSH
from support.instances import encoded, instance
from support.relay import EXPLICIT, blocks, until


class Link:
    """Remembers what it was asked to do; ``trouble`` ends cannot be told."""

    def __init__(self, trouble: int = 0):
        self.trouble, self.log = trouble, []

    async def store_durably(self, call, data, *, urgent=False):
        self.log.append("store")

    async def store_confirmed(self, call, data):
        self.log.append("store")
        return StoreAnswer(0)

    @asynccontextmanager
    async def hearing(self, association_id, handler):
        yield

    async def request(self, call, data=None, cancellation=None, requestor=None):
        self.log.append("request")
        yield DimseResponse(call.command.response(0))

    async def announce(self, notice):
        self.log.append(notice.state)

    async def finish(self, notice):
        assert notice.state is AssociationState.CLOSED
        if self.trouble:
            self.trouble -= 1
            raise BackendUnavailable("NATS is away")
        self.log.append("finish")


def handler(link: Link, lease: float = 0.06, *, confirmed: bool = False) -> ProxyHandler:
    return ProxyHandler(link, Admission(frozenset()), lambda contexts: None, confirmed=confirmed, lease_seconds=lease)


ASSOCIATION = SimpleNamespace(
    association_id="a",
    contexts={},
    extended={},
    request=SimpleNamespace(association_id="a", calling_ae_title="CT", called_ae_title="PROXY"),
)


async def send(to: ProxyHandler) -> None:
    one = instance()
    context = SimpleNamespace(abstract_syntax=one.SOPClassUID, transfer_syntax=EXPLICIT)
    command = store_request(one.SOPClassUID, one.SOPInstanceUID)
    await to.store(ASSOCIATION, SimpleNamespace(data=blocks(encoded(one)), context=context, command=command))


async def test_a_durable_end_follows_the_stores_and_a_confirmed_one_is_announced():
    for confirmed, end in ((False, "finish"), (True, AssociationState.CLOSED)):
        link = Link()
        proxy = handler(link, confirmed=confirmed)
        await send(proxy)
        await proxy.closed(ASSOCIATION, clean=True)
        assert link.log == [AssociationState.OPEN, "store", end]


async def test_that_it_asks_no_more_is_told_at_once_to_whoever_keeps_an_association_for_it():
    """Its end is told to one process of the far side, behind its instances."""
    link = Link()
    proxy = handler(link)
    await send(proxy)
    command = request(CommandField.N_ACTION_RQ, STORAGE_COMMITMENT_PUSH)
    context = SimpleNamespace(abstract_syntax=STORAGE_COMMITMENT_PUSH, transfer_syntax=EXPLICIT)
    asked = SimpleNamespace(data=None, context=context, command=command, cancellation=Cancellation())
    assert [one.command.status async for one in proxy.serve(ASSOCIATION, asked)] == [0]
    await proxy.closed(ASSOCIATION, clean=True)
    assert link.log == [AssociationState.OPEN, "store", "request", AssociationState.LEFT, "finish"]


async def test_an_association_that_stored_nothing_has_no_end():
    link = Link()
    await handler(link).closed(ASSOCIATION, clean=True)
    assert link.log == []


async def test_an_end_that_cannot_be_told_is_told_later_and_renewed_until_then():
    link = Link(trouble=3)
    proxy = handler(link)
    await send(proxy)
    await proxy.closed(ASSOCIATION, clean=False)
    assert "finish" not in link.log
    renewing = asyncio.create_task(proxy.renew())
    await until(lambda: "finish" in link.log)
    count = len(link.log)
    await asyncio.sleep(0.1)
    renewing.cancel()
    assert link.log.count(AssociationState.RENEWED) == 3
    assert len(link.log) == count


async def test_an_end_is_not_tried_to_be_told_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(relay, "_END_SECONDS", 0.0)
    link = Link(trouble=1)
    proxy = handler(link)
    await send(proxy)
    await proxy.closed(ASSOCIATION, clean=True)
    renewing = asyncio.create_task(proxy.renew())
    await asyncio.sleep(0.1)
    renewing.cancel()
    assert link.log == [AssociationState.OPEN, "store"]

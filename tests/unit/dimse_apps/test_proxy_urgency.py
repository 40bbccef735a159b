"""The proxy tells the relay which instances are urgent, as its settings say."""

from types import SimpleNamespace

from imaging_services.apps.dimse_proxy.relay import ProxyHandler
from imaging_services.apps.dimse_proxy.settings import Settings
from imaging_services.domain.dicom.command_set import store_request
from imaging_services.domain.dicom.dimse import StoreAnswer
from imaging_services.domain.relay.admission import Admission
from support.instances import encoded, instance
from support.relay import EXPLICIT, blocks
from support.urgency import EACH_SETTING_ALONE


class Link:
    def __init__(self):
        self.urgent = []

    async def store_durably(self, call, data, *, urgent=False):
        self.urgent.append(urgent)

    async def store_confirmed(self, call, data):
        self.urgent.append(None)
        return StoreAnswer(0)

    async def announce(self, notice):
        pass

    async def finish(self, notice):
        pass


def proxy(link: Link, *, confirmed: bool = False, **variables: str) -> ProxyHandler:
    settings = Settings(DIMSE_NATS_URL="nats://127.0.0.1:1", **variables)
    return ProxyHandler(
        link,
        Admission(frozenset()),
        lambda contexts: None,
        confirmed=confirmed,
        lease_seconds=60,
        urgency=settings.urgency(),
    )


def association(calling: str, number: int = 1) -> SimpleNamespace:
    name = f"{calling}.{number}"
    opened = SimpleNamespace(association_id=name, calling_ae_title=calling, called_ae_title="PROXY")
    return SimpleNamespace(association_id=name, extended={}, request=opened)


async def send(to: ProxyHandler, over: SimpleNamespace, priority: int = 0, **elements: str) -> None:
    one = instance()
    for keyword, value in elements.items():
        setattr(one, keyword, value)
    context = SimpleNamespace(abstract_syntax=one.SOPClassUID, transfer_syntax=EXPLICIT)
    command = store_request(one.SOPClassUID, one.SOPInstanceUID, priority=priority)
    await to.store(over, SimpleNamespace(data=blocks(encoded(one)), context=context, command=command))


@EACH_SETTING_ALONE
async def test_each_setting_alone(variables, urgent):
    link = Link()
    handler = proxy(link, **variables)
    await send(handler, association("ER"))
    await send(handler, association("CT2", 1), Modality="XA")
    await send(handler, association("CT2", 2), RequestedProcedurePriority="HIGH")
    await send(handler, association("CT2", 3), priority=1)
    assert link.urgent == urgent


async def test_a_series_stays_together_until_its_association_ends():
    link, over = Link(), association("CT1")
    handler = proxy(link, DIMSE_URGENT_PROCEDURE_PRIORITIES="STAT")
    await send(handler, over, RequestedProcedurePriority="STAT", SeriesInstanceUID="1.2.3")
    await send(handler, over, RequestedProcedurePriority="LOW", SeriesInstanceUID="1.2.3")
    await handler.closed(over, clean=True)
    await send(handler, over, RequestedProcedurePriority="LOW", SeriesInstanceUID="1.2.3")
    assert link.urgent == [True, True, False]


async def test_confirmed_stores_wait_behind_nothing_anyway():
    link = Link()
    await send(proxy(link, confirmed=True, DIMSE_URGENT_CALLING_AES="CT1"), association("CT1"))
    assert link.urgent == [None]

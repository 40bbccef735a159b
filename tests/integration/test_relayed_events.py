"""Event reports over the association that asked, through two proxies: an archive and a requestor with pynetdicom."""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt

from imaging_services.adapters.dimse.acceptor import listen
from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.domain.dicom.command_set import (
    ACTION_TYPE_ID,
    AFFECTED_SOP_CLASS_UID,
    PRIORITY,
    REQUESTED_SOP_CLASS_UID,
    REQUESTED_SOP_INSTANCE_UID,
    CommandField,
    CommandSet,
    request,
    store_request,
)
from imaging_services.domain.dicom.dimse import (
    Association,
    DimseRequest,
    DimseResponse,
    ProposedContext,
    StoreAnswer,
)
from imaging_services.domain.relay.messages import Call, Origin
from support.dimse import CT, EXPLICIT, IMPLICIT, Recorder
from support.instances import encoded, instance
from support.open_sockets import OpenSockets
from support.proxies import proxy
from support.relay import nats_relay, relay_settings, until
from support.reporting_archive import WELL_KNOWN, ReportingArchive
from support.scripted_services import COMMITMENT, MPPS, ServicesScp
from support.scripted_services import STUDY_ROOT_FIND as FIND
from support.servers import Nats


@dataclass
class Ends:
    """Ports of the proxies, and the AE behind the near one, to which event reports go over new associations."""

    near: int
    far: int
    modality: ServicesScp


@pytest.fixture
def archive() -> Iterator[ReportingArchive]:
    with ReportingArchive() as one:
        yield one


@pytest.fixture(params=["durable", "confirmed"])
async def ends(request: pytest.FixtureRequest, nats_server: Nats, archive: ReportingArchive) -> AsyncIterator[Ends]:
    root, url = f"t{uuid.uuid4().hex}", nats_server.url
    with ServicesScp() as modality:
        async with AsyncExitStack() as stack:
            far = await stack.enter_async_context(proxy(url, root, "B", archive.port, DIMSE_TARGET_AE="ARCHIVE"))
            more = {"DIMSE_DELIVERY_MODE": request.param, "DIMSE_TARGET_AE": "SERVICES"}
            near = await stack.enter_async_context(proxy(url, root, "A", modality.port, **more))
            yield Ends(near, far, modality)


def transaction() -> Dataset:
    action_information = Dataset()
    action_information.TransactionUID = generate_uid()
    return action_information


@dataclass
class Modality:
    """Asks for storage commitment, and hears of it over the same association, as its SCU."""

    reports: list[Dataset] = field(default_factory=list)
    status: int = 0x0000
    association: Any = None
    sockets: OpenSockets = field(default_factory=OpenSockets)
    came: threading.Event = field(default_factory=threading.Event)

    def ask(self, port: int) -> int:
        """Open the association, ask, and leave it open."""
        ae = AE(ae_title="MODALITY")
        for uid in (COMMITMENT, MPPS):
            ae.add_requested_context(uid, ["1.2.840.10008.1.2"])
        handlers = [(evt.EVT_N_EVENT_REPORT, self._reported), self.sockets.handler]
        self.association = ae.associate("127.0.0.1", port, ae_title="DIMSE", evt_handlers=handlers)
        assert self.association.is_established
        return self.ask_again()

    def ask_again(self) -> int:
        return int(self.association.send_n_action(transaction(), 1, COMMITMENT, WELL_KNOWN)[0].Status)

    def end(self) -> None:
        self.association.release()
        self.sockets.close()

    def _reported(self, event: Any) -> tuple[int, Dataset]:
        self.reports.append(event.event_information)
        reply = Dataset()
        reply.PatientID = "heard"
        self.came.set()
        return self.status, reply


async def test_reports_come_over_the_association_that_asked(ends: Ends, archive: ReportingArchive) -> None:
    modality = Modality()
    assert await asyncio.to_thread(modality.ask, ends.near) == 0
    await until(lambda: len(archive.answers) == 1)
    assert [one.TransactionUID for one in modality.reports] == [one.TransactionUID for one in archive.asked]
    assert (archive.answers[0].status, archive.answers[0].reply.PatientID) == (0x0000, "heard")
    modality.status, archive.document = 0x0213, bytes(2 * 2**20)  # more than a NATS message holds
    assert await asyncio.to_thread(modality.ask_again) == 0
    await until(lambda: len(archive.answers) == 2)
    assert modality.reports[1].EncapsulatedDocument == archive.document
    assert archive.answers[1].status == 0x0213
    asking = [one for one in archive.contexts if COMMITMENT in one and MPPS in one]
    assert len(asking) >= 1
    await until(lambda: archive.ended == len(archive.contexts) - 1)  # one is kept, as the requestor's is
    await asyncio.to_thread(modality.end)
    await until(lambda: archive.ended == len(archive.contexts))
    assert ends.modality.kinds() == []


async def test_a_report_behind_the_release_is_repeated_over_a_new_association(
    ends: Ends, archive: ReportingArchive
) -> None:
    archive.go.clear()
    modality = Modality()
    assert await asyncio.to_thread(modality.ask, ends.near) == 0
    await asyncio.to_thread(modality.end)
    await until(lambda: archive.ended == len(archive.contexts))  # so it knows that it has to
    archive.go.set()
    assert await asyncio.to_thread(archive.report_anew, ends.far, "DIMSE") == 0x0000
    assert modality.reports == []
    assert [one.TransactionUID for _, _, one in ends.modality.asked] == [archive.asked[0].TransactionUID]


async def test_a_near_proxy_that_is_gone_is_said_to_the_archive(nats_server: Nats, archive: ReportingArchive) -> None:
    root, url = f"t{uuid.uuid4().hex}", nats_server.url
    elements = {REQUESTED_SOP_CLASS_UID: COMMITMENT, REQUESTED_SOP_INSTANCE_UID: WELL_KNOWN, ACTION_TYPE_ID: 1}
    command = request(CommandField.N_ACTION_RQ, COMMITMENT, has_data_set=True).elements
    del command[AFFECTED_SOP_CLASS_UID], command[PRIORITY]
    origin, hears = Origin("gone", "MODALITY", "DIMSE"), ((COMMITMENT, IMPLICIT),)
    action = Call(origin, COMMITMENT, IMPLICIT, CommandSet({**command, **elements}), hears=hears)
    archive.go.clear()
    with ServicesScp() as behind:
        async with proxy(url, root, "B", archive.port, DIMSE_TARGET_AE="ARCHIVE") as far:
            async with nats_relay(relay_settings(url, "A", root)) as near:  # it asks, and hears nothing any more
                asked = [one.command.status async for one in near.request(action, encoded(transaction(), IMPLICIT))]
            assert asked == [0]
            archive.go.set()
            await until(lambda: len(archive.answers) == 1)
            assert archive.answers[0].status == 0x0110
            assert "not open any more" in archive.answers[0].comment
            async with proxy(url, root, "A", behind.port, DIMSE_TARGET_AE="SERVICES"):
                assert await asyncio.to_thread(archive.report_anew, far, "DIMSE") == 0x0000
            assert behind.kinds() == ["N-EVENT-REPORT"]


async def test_every_element_of_a_response_comes_back(nats_server: Nats) -> None:
    """A status that nobody here knows, and what PS3.7 annex C adds to them; of a thousand pending ones, too."""
    root, url, ct = f"t{uuid.uuid4().hex}", nats_server.url, instance()
    answering = Answering(0xC123)
    listener = await listen(answering, "127.0.0.1", 0)
    try:
        async with (
            proxy(url, root, "B", listener.port, DIMSE_TARGET_AE="ANY"),
            proxy(url, root, "A", DIMSE_DELIVERY_MODE="confirmed") as near,
        ):
            contexts = tuple(ProposedContext(2 * n + 1, uid, (EXPLICIT,)) for n, uid in enumerate((CT, FIND, MPPS)))
            requestor = await RemoteAE("127.0.0.1", near).associate(
                calling_ae_title="SCU", called_ae_title="DIMSE", contexts=contexts
            )
            stored = await requestor.store(1, store_request(CT, ct.SOPInstanceUID), encoded(ct))
            found = [one async for one in requestor.request(3, request(CommandField.C_FIND_RQ, FIND))]
            acted = [one async for one in requestor.request(5, request(CommandField.N_ACTION_RQ, MPPS))]
            await requestor.release()
    finally:
        await listener.close(1)
    for response in (stored, found[-1].command, acted[-1].command):
        assert {key: response.elements.get(key) for key in answering.more} == answering.more
    assert [len(found), found[0].data, found[1000].data] == [1002, b"match    0", b"match 1000"]


class Answering(Recorder):
    """Answers everything with one status and all that may stand beside it, a C-FIND after 1,001 matches."""

    def __init__(self, status: int) -> None:
        super().__init__()
        failed = b"1.2.840.1\\1.2.840.2 "
        self.more = {
            0x0900: status,
            0x0901: 0x00100020,
            0x0902: "not so",
            0x0903: 77,
            0x1005: 0x00100010,
            0x0058: failed,
        }

    async def store(self, association: Association, asked: DimseRequest) -> StoreAnswer:
        assert asked.data is not None
        _ = [block async for block in asked.data]
        return StoreAnswer.of(CommandSet(dict(self.more)))

    async def serve(self, association: Association, asked: DimseRequest) -> AsyncIterator[DimseResponse]:
        if asked.command.command_field == CommandField.C_FIND_RQ:
            for number in range(1001):
                yield DimseResponse(asked.command.response(0xFF00, has_data_set=True), b"match %4d" % number)
        response = asked.command.response(self.more[0x0900])
        yield DimseResponse(CommandSet({**response.elements, **self.more}))

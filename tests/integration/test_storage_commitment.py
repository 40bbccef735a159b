"""Storage commitment with real peers: pynetdicom, which takes reports both ways, and Orthanc."""

import asyncio
import uuid
from functools import partial

import pydicom
import pytest
from pydicom.uid import MRImageStorage, generate_uid

from imaging_services.adapters.dimse.contexts import choose_contexts, load_capabilities
from imaging_services.apps.dimse_ingestion.intake import RelayedHandler
from imaging_services.apps.dimse_ingestion.transactions import Reference
from imaging_services.apps.dimse_ingestion.verification import Verifier
from imaging_services.domain.errors import BackendUnavailable
from imaging_services.domain.manifest.query import Scope
from support.commitment_scu import TITLE as REQUESTOR
from support.commitment_scu import CommitmentScu, failures, successes, transaction
from support.dimse_archive import TITLE, archive
from support.instances import instance
from support.proxies import proxy
from support.relay import listening, nats_relay, relay_settings


@pytest.mark.parametrize("same_association", [True, False])
async def test_report_names_what_is_safe_and_what_is_not(tmp_path, same_association):
    study = generate_uid()
    kept = [instance(StudyInstanceUID=study) for _ in range(3)]
    never_sent, of_another_class = instance(), pydicom.Dataset()
    of_another_class.SOPClassUID, of_another_class.SOPInstanceUID = MRImageStorage, kept[1].SOPInstanceUID
    with CommitmentScu() as scu:
        # released at once, or kept open: then the report is to come over it, not over another
        seconds = 0 if same_association else 60
        async with archive(tmp_path, {REQUESTOR: scu.port}, same_association_seconds=seconds) as opened:
            await opened.keep(*kept)
            lost = next(
                one
                for one in await opened.manifest.locate(Scope(study))
                if one.sop_instance_uid == kept[2].SOPInstanceUID
            )
            del opened.space.objects[lost.object_name]
            asked = transaction(kept[0], of_another_class, kept[2], never_sent)
            statuses = await asyncio.to_thread(scu.ask, opened.port, TITLE, asked, wait=same_association)
            await asyncio.to_thread(scu.wait_for, 1)
    assert statuses == [0x0000]
    assert scu.over == [not same_association]
    ((event_type, report),) = scu.reports
    assert event_type == 2
    assert report.TransactionUID == asked.TransactionUID
    assert report.RetrieveAETitle == TITLE
    assert successes(report) == {kept[0].SOPInstanceUID}
    assert failures(report) == {
        kept[1].SOPInstanceUID: 0x0119,
        kept[2].SOPInstanceUID: 0x0112,
        never_sent.SOPInstanceUID: 0x0112,
    }


async def test_a_space_that_is_away_gives_no_verdict(tmp_path):
    one = instance()
    async with archive(tmp_path, {}) as opened:
        await opened.keep(one)
        opened.space.failure = BackendUnavailable("away")
        verifier = Verifier(opened.manifest, opened.space, provider="space")
        with pytest.raises(BackendUnavailable, match="away"):
            await verifier.verify([Reference(one.SOPClassUID, one.SOPInstanceUID)])


async def test_a_requestor_that_is_busy_is_told_again(tmp_path):
    one = instance()
    with CommitmentScu() as scu:
        scu.answers = [0x0213, 0x0213]
        async with archive(tmp_path, {REQUESTOR: scu.port}, same_association_seconds=60) as opened:
            await opened.keep(one)
            await asyncio.to_thread(scu.ask, opened.port, TITLE, transaction(one))
            await asyncio.to_thread(scu.wait_for, 1)
    assert scu.reports[0][0] == 1
    assert scu.answers == []


async def test_a_report_that_is_refused_over_the_association_goes_over_another(tmp_path):
    one = instance()
    with CommitmentScu() as scu:
        scu.answers = [0x0110]
        async with archive(tmp_path, {REQUESTOR: scu.port}, same_association_seconds=0.1) as opened:
            await opened.keep(one)
            await asyncio.to_thread(scu.ask, opened.port, TITLE, transaction(one), reports=1)
    assert (scu.over, scu.answers) == ([True], [])


async def test_requests_that_are_refused(tmp_path):
    one, uid = instance(), generate_uid()
    with CommitmentScu() as scu:
        # nobody knows the requestor: its transaction waits for a way
        async with archive(tmp_path, {}, same_association_seconds=60) as opened:
            await opened.keep(one)
            first, again = transaction(one, uid=uid), transaction(one, uid=uid)
            assert await asyncio.to_thread(scu.ask, opened.port, TITLE, first, again) == [0x0000, 0x0131]
            assert await asyncio.to_thread(scu.ask, opened.port, TITLE, transaction()) == [0x0115]
            assert await asyncio.to_thread(scu.ask, opened.port, TITLE, first, action_type=2) == [0x0123]
            # an administrator adds the requestor: it is told
            (tmp_path / "KNOWN_AES").write_text(f"{REQUESTOR}:127.0.0.1:{scu.port}")
            await asyncio.to_thread(scu.wait_for, 1)
    assert [report.TransactionUID for _, report in scu.reports] == [uid]


@pytest.mark.parametrize("stays", [True, False])
async def test_through_a_proxy_the_report_goes_over_the_requestors_association(nats_server, tmp_path, stays):
    """While it is open; afterwards over another one to the known AE."""
    one, root = instance(), f"t{uuid.uuid4().hex}"
    choose = partial(choose_contexts, capabilities=load_capabilities(None))
    with CommitmentScu() as scu:
        known = {} if stays else {REQUESTOR: scu.port}
        async with (
            nats_relay(relay_settings(nats_server.url, "B", root)) as relay,
            archive(tmp_path, known, same_association_seconds=0.5, relay=relay) as opened,
            listening(relay, RelayedHandler(opened.intake, opened.holds, choose)),
            proxy(nats_server.url, root, "A") as port,
        ):
            await opened.keep(one)
            asked = transaction(one)
            assert await asyncio.to_thread(scu.ask, port, "DIMSE", asked, wait=stays) == [0x0000]
            await asyncio.to_thread(scu.wait_for, 1)
    assert scu.over == [not stays]
    assert successes(scu.reports[0][1]) == {one.SOPInstanceUID}


async def test_what_arrives_after_it_was_asked_for_is_reported_as_safe(nats_server, tmp_path):
    """As from an edge that still has it in its spool."""
    first, late, root = instance(), instance(), f"t{uuid.uuid4().hex}"
    choose = partial(choose_contexts, capabilities=load_capabilities(None))
    with CommitmentScu() as scu:
        async with (
            nats_relay(relay_settings(nats_server.url, "B", root)) as relay,
            archive(tmp_path, {REQUESTOR: scu.port}, relay=relay) as opened,
            listening(relay, RelayedHandler(opened.intake, opened.holds, choose)),
            proxy(nats_server.url, root, "A") as port,
        ):
            await opened.keep(first)
            assert await asyncio.to_thread(scu.ask, port, "DIMSE", transaction(first, late)) == [0x0000]
            assert scu.reports == []
            await opened.keep(late)
            await asyncio.to_thread(scu.wait_for, 1)
    assert successes(scu.reports[0][1]) == {first.SOPInstanceUID, late.SOPInstanceUID}

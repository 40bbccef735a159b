"""The study binding's FHIR side against a real HTTP server with FHIR's rules, fed by the event log's twin."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from imaging_services.adapters.http.client import HttpOptions, HttpTarget
from imaging_services.adapters.memory.event_log import MemoryEventLog
from imaging_services.apps.study_binding.deliver import DeliverStudy, WebhookSubscriber
from imaging_services.apps.study_binding.fhir_study import FhirStudies, UpdateBy
from imaging_services.apps.study_binding.imaging_study import revision_of
from imaging_services.apps.study_binding.mapping import Mapping
from imaging_services.domain.errors import BackendUnavailable, DeadlineExceeded, InvalidInput, Refused
from imaging_services.domain.events.envelope import DICOM_AVAILABLE, STUDY_REVISION, CloudEvent
from imaging_services.domain.events.selector import Selector
from imaging_services.domain.events.webhook import Webhook as WebhookTarget
from imaging_services.domain.pace import Pace
from support.events import consuming, eventually, letters, letters_arrive
from support.fhir_server import FhirServer, outcome
from support.revisions import STUDY_ATTRIBUTES, STUDY_UID, element, revision, revision_event, series
from support.webhook import Reply, Webhook

TYPES = frozenset({STUDY_REVISION})


@pytest.fixture
def fhir() -> Iterator[FhirServer]:
    with FhirServer() as server:
        yield server


@asynccontextmanager
async def delivery(
    server: FhirServer, *, update_by: UpdateBy = "identifier", selector: str = "", timeout: float = 20, **options: Any
) -> AsyncIterator[DeliverStudy]:
    """The handler as ``main`` wires it."""
    async with HttpTarget(server.url, HttpOptions(timeout_seconds=timeout, **options)) as http:
        yield DeliverStudy(FhirStudies(http, Mapping(), update_by), Selector.parse(selector), Pace(8))


async def test_one_resource_a_study_however_many_revisions(fhir: FhirServer) -> None:
    log = MemoryEventLog()
    async with delivery(fhir) as deliver, consuming(log, "fhir", deliver, TYPES):
        await log.append([revision_event(revision(number, series(instances=number + 1))) for number in range(3)])
        await eventually(lambda: fhir.studies and revision_of(fhir.only()) == 2)
    assert fhir.only()["numberOfInstances"] == 3
    first = fhir.writes[0]
    assert first.method == "PUT"
    assert first.path == "/fhir/ImagingStudy"
    assert first.query == {"identifier": [f"urn:dicom:uid|urn:oid:{STUDY_UID}"]}
    assert first.headers["content-type"] == "application/fhir+json"
    assert "authorization" not in first.headers
    assert await letters(log) == []


@pytest.mark.parametrize("update_by", ["identifier", "id"])
async def test_an_older_revision_never_overwrites_a_newer_one(fhir: FhirServer, update_by: UpdateBy) -> None:
    async with delivery(fhir, update_by=update_by) as deliver:
        await deliver(revision_event(revision(5)))
        await deliver(revision_event(revision(4)))
    assert revision_of(fhir.only()) == 5
    assert len(fhir.writes) == 1


async def test_revisions_of_one_study_at_the_same_time(fhir: FhirServer) -> None:
    numbers = [3, 1, 4, 0, 2]
    async with delivery(fhir) as deliver:
        await asyncio.gather(*(deliver(revision_event(revision(number))) for number in numbers))
    assert revision_of(fhir.only()) == 4
    assert fhir.most_at_once == 1


async def test_different_studies_go_out_at_the_same_time(fhir: FhirServer) -> None:
    fhir.script = [Reply(404, delay=0.3) for _ in range(4)]
    async with delivery(fhir) as deliver:
        uids = [f"1.2.{number}" for number in range(4)]
        events = [revision_event(revision(0, series(study_uid=uid), study_uid=uid)) for uid in uids]
        await asyncio.gather(*map(deliver, events))
    assert len(fhir.studies) == 4
    assert fhir.most_at_once > 1


async def test_a_server_without_conditional_update() -> None:
    with FhirServer(conditional_update=False) as fhir:
        async with delivery(fhir, update_by="id") as deliver:
            for number in range(2):
                await deliver(revision_event(revision(number)))
        assert list(fhir.studies) == [STUDY_UID]
        assert fhir.only()["meta"]["versionId"] == "2"
        assert "if-match" not in fhir.writes[0].headers
        assert fhir.writes[1].headers["if-match"] == 'W/"1"'
        async with delivery(fhir) as deliver:
            with pytest.raises(Refused, match="conditional update is not supported"):
                await deliver(revision_event(revision(2)))


async def test_a_server_that_cannot_be_read_is_still_written() -> None:
    with FhirServer(searchable=False) as fhir:
        async with delivery(fhir) as deliver:
            await deliver(revision_event(revision(0)))
            await deliver(revision_event(revision(1)))
        assert revision_of(fhir.only()) == 1


async def test_a_write_names_the_version_it_replaces_and_reads_again_when_it_moved(fhir: FhirServer) -> None:
    async with delivery(fhir) as deliver:
        await deliver(revision_event(revision(0)))
        (resource_id,) = fhir.studies
        write = fhir._write

        def somebody_is_faster(path: str, request: Any) -> Reply:
            fhir._write = write  # type: ignore[method-assign]
            fhir.change(resource_id, description="changed by hand")
            return write(path, request)

        fhir._write = somebody_is_faster  # type: ignore[method-assign]
        await deliver(revision_event(revision(1)))
    assert [request.headers.get("if-match") for request in fhir.writes] == [None, 'W/"1"', 'W/"2"']
    assert revision_of(fhir.only()) == 1
    assert fhir.only()["meta"]["versionId"] == "3"


@pytest.mark.parametrize("status", [409, 412])
async def test_conflicts_are_tried_again(fhir: FhirServer, status: int) -> None:
    async with delivery(fhir) as deliver:
        await deliver(revision_event(revision(0)))
        fhir.fail_writes = [outcome(status, "conflict", "version moved")]
        await deliver(revision_event(revision(1)))
        assert revision_of(fhir.only()) == 1
        fhir.fail_writes = [outcome(status, "conflict", "version moved")] * 20
        with pytest.raises(BackendUnavailable, match="version moved"):
            await deliver(revision_event(revision(2)))


async def test_several_resources_of_one_study_are_refused_with_the_reason(fhir: FhirServer) -> None:
    async with delivery(fhir) as deliver:
        await deliver(revision_event(revision(0)))
        fhir.studies["copy"] = fhir.only() | {"id": "copy"}
        with pytest.raises(Refused, match="2 ImagingStudy resources"):
            await deliver(revision_event(revision(1)))
        fhir.searchable = False
        with pytest.raises(Refused, match="2 resources match"):
            await deliver(revision_event(revision(1)))


async def test_the_reason_of_an_operation_outcome_reaches_the_dead_letter_without_the_patient(fhir: FhirServer) -> None:
    log = MemoryEventLog()
    fhir.fail_writes = [outcome(422, "invalid", "subject PID-4711 (Frau Eva Maria Müller) is not known here")]
    async with delivery(fhir) as deliver, consuming(log, "fhir", deliver, TYPES):
        await log.append([revision_event(revision())])
        (letter,) = await letters_arrive(log, 1)
    assert letter.attempts == 1
    assert "422" in letter.reason
    assert "invalid" in letter.reason
    assert "subject *** (***) is not known here" in letter.reason


@pytest.mark.parametrize("status", [500, 502, 503, 429])
async def test_a_server_in_trouble_is_tried_again_by_the_log(fhir: FhirServer, status: int) -> None:
    log = MemoryEventLog(retry_delays=(0.01,))
    fhir.fail_writes = [Reply(status), Reply(status)]
    async with delivery(fhir) as deliver, consuming(log, "fhir", deliver, TYPES):
        await log.append([revision_event(revision())])
        await eventually(lambda: fhir.studies)
    assert len(fhir.writes) == 3
    assert await letters(log) == []


async def test_a_failed_read_is_tried_again(fhir: FhirServer) -> None:
    fhir.script = [Reply(500)]
    async with delivery(fhir) as deliver:
        with pytest.raises(BackendUnavailable, match="500"):
            await deliver(revision_event(revision()))


async def test_a_server_that_hangs(fhir: FhirServer) -> None:
    fhir.fail_writes = [Reply(200, delay=30)]
    async with delivery(fhir, timeout=0.3) as impatient:
        while fhir.fail_writes:  # where the search before was too slow, try again
            with pytest.raises(DeadlineExceeded):
                await impatient(revision_event(revision()))
    async with delivery(fhir) as deliver:
        await deliver(revision_event(revision()))
    assert len(fhir.studies) == 1


async def test_a_server_that_is_not_there() -> None:
    with FhirServer() as gone:
        pass
    async with delivery(gone) as deliver:
        with pytest.raises(BackendUnavailable):
            await deliver(revision_event(revision()))


async def test_token_and_basic() -> None:
    with FhirServer(authorization="Bearer abc") as fhir:
        async with delivery(fhir, authorization="Bearer abc", basic=("u", "p")) as deliver:
            await deliver(revision_event(revision()))
        async with delivery(fhir, authorization="Bearer other") as deliver:
            with pytest.raises(Refused, match="not logged in"):
                await deliver(revision_event(revision(1)))
    with FhirServer(authorization="Basic dTpw") as fhir:
        async with delivery(fhir, basic=("u", "p")) as deliver:
            await deliver(revision_event(revision()))
        assert len(fhir.studies) == 1


async def test_selected_by_any_series(fhir: FhirServer) -> None:
    mixed = revision(0, series(f"{STUDY_UID}.1", provider="south"), series(f"{STUDY_UID}.2", provider="north-2"))
    async with delivery(fhir, selector="north.*") as deliver:
        await deliver(revision_event(revision(0, series(provider="south"))))
        assert fhir.requests == []
        await deliver(revision_event(mixed))
    assert fhir.only()["numberOfSeries"] == 2


async def test_a_deleted_study_is_cancelled_where_it_is_known(fhir: FhirServer) -> None:
    gone = revision(1)
    gone["study"]["series"] = []
    gone["changeSet"]["deletions"] = [f"{STUDY_UID}.1/{STUDY_UID}.1.1"]
    async with delivery(fhir, selector="north") as deliver:
        await deliver(revision_event(gone))
        assert fhir.studies == {}
        await deliver(revision_event(revision(0)))
        await deliver(revision_event(gone))
    assert fhir.only()["status"] == "cancelled"
    assert "series" not in fhir.only()


async def test_a_large_study(fhir: FhirServer) -> None:
    data = revision(0, *(series(f"{STUDY_UID}.{number}", instances=500) for number in range(10)))
    async with delivery(fhir) as deliver:
        await deliver(revision_event(data))
        await deliver(revision_event(data | {"revision": 1}))
    assert fhir.only()["numberOfInstances"] == 5000


async def test_an_event_that_is_no_study_revision(fhir: FhirServer) -> None:
    async with delivery(fhir) as deliver:
        for data in (b"[]", b'{"study": {}}', b'{"revision": "x", "study": {"studyInstanceUID": "1.2"}}'):
            with pytest.raises(InvalidInput, match="StudyRevisionEvent"):
                await deliver(CloudEvent(STUDY_REVISION, "test", "1", data))
        with pytest.raises(InvalidInput, match="not DicomAvailableEvent"):
            await deliver(CloudEvent(DICOM_AVAILABLE, "test", "1", b"{}"))
    assert fhir.requests == []


async def test_a_wrong_value_is_not_repeated(fhir: FhirServer) -> None:
    data = revision(0, attributes=[element("00100010", "PN", "Doe^John") | {"value": {"Doe^John": 1}}])
    async with delivery(fhir) as deliver:
        with pytest.raises(InvalidInput) as caught:
            await deliver(revision_event(data))
    assert "Doe" not in str(caught.value)


async def test_no_patient_in_the_log(fhir: FhirServer) -> None:
    fhir.fail_writes = [outcome(409, "conflict", "Müller^Eva^Maria^Frau PID-4711")]
    with structlog.testing.capture_logs() as lines:
        async with delivery(fhir) as deliver:
            await deliver(revision_event(revision()))
    assert lines
    for attribute in STUDY_ATTRIBUTES[4:6]:
        assert attribute["value"] not in str(lines)


async def test_a_webhook_gets_the_event_as_it_is() -> None:
    event = revision_event(revision(7))
    with Webhook() as hook:
        async with HttpTarget(hook.url) as http:
            await DeliverStudy(WebhookSubscriber(WebhookTarget(http)), Selector(), Pace(1))(event)
        (received,) = hook.events
    assert received["id"] == event.id
    assert received["type"] == STUDY_REVISION
    assert received["source"] == event.source
    assert received["data"]["revision"] == 7

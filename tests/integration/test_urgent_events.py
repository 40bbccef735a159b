"""What is urgent by a direct association or by STOW-RS overtakes at subscribers that have a backlog."""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import nats
import pydicom
from pydicom.uid import generate_uid

from imaging_services.apps.dicomweb_ingestion import main as dicomweb
from imaging_services.apps.dicomweb_ingestion.settings import Settings as DicomwebSettings
from imaging_services.apps.dimse_ingestion import main as dimse
from imaging_services.apps.dimse_ingestion.settings import Settings as DimseSettings
from imaging_services.apps.event_driven_ingestion import main as processor
from imaging_services.apps.event_driven_ingestion.settings import Settings as ProcessorSettings
from imaging_services.apps.instance_binding import main as instance_binding
from imaging_services.apps.instance_binding.settings import Settings as InstanceBindingSettings
from imaging_services.apps.study_binding import main as study_binding
from imaging_services.apps.study_binding.settings import Settings as StudyBindingSettings
from imaging_services.domain.events.subjects import EventSubjects, urgent_durable
from support.dcmtk import dcmtk, written
from support.dicomweb_stack import write_bucket
from support.events import eventually
from support.instances import instance, part10
from support.ports import a_free_port
from support.services import running
from support.webhook import Reply, Request, Webhook

BACKLOG = 12
AHEAD = 6  # what is under way, has been handed out before the urgent ones came, or wins a close race
TITLE = "DIMSE_INGESTION"


class Slow(Webhook):
    """Answers nothing before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = threading.Event()

    def __exit__(self, *_: object) -> None:
        self.answers.set()
        super().__exit__()

    def answer(self, request: Request) -> Reply:
        assert self.answers.wait(120)
        return Reply(delay=0.02)

    def studies(self) -> list[str]:
        """Those that the events tell of, in the order of their arrival."""
        return [study_of(event["data"]) for event in self.events]


def study_of(data: dict[str, Any]) -> str:
    return (
        data["study"]["studyInstanceUID"] if "study" in data else data["endpoint"].split("/studies/")[1].split("/")[0]
    )


def stat() -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.RequestedProcedurePriority = "STAT"
    return instance(RequestAttributesSequence=[item])


@asynccontextmanager
async def site(nats_server: Any, database: Any, s3: Any, bucket: str, folder: Path, hooks: list[Slow]) -> AsyncIterator:
    """Ports of DIMSE and DICOMweb, and the names of the event log; the hooks subscribe to instances and revisions."""
    root = f"t{uuid.uuid4().hex}"
    events = {"EVENTS_NATS_URL": nats_server.url, "EVENTS_NATS_SUBJECT_ROOT": root, "EVENTS_STREAM": root}
    db = {"DB_HOST": database.host, "DB_PORT": database.port, "DB_NAME": database.name}
    db |= {"DB_USER": database.user, "DB_PASS": database.password}
    space = {"BUCKET_CONFIG_PATH": write_bucket(folder, s3, bucket), "PROVIDER_NAME": "space", "SPOOL_DIR": folder}
    urgent = {"DIMSE_URGENT_PROCEDURE_PRIORITIES": "STAT"}
    port, web = a_free_port(), a_free_port()
    services = [
        (
            processor.main,
            ProcessorSettings(
                **events,
                **db,
                HTTP_PORT=a_free_port(),
                STUDY_AGGREGATION_SCHEDULE="100ms",
                IMAGING_INGESTION_STUDY_AGGREGATION_TIMEOUTSECONDS="0.5",
            ),
        ),
        (
            dimse.main,
            DimseSettings(
                **events, **db, **space, **urgent, DIMSE_HOST="127.0.0.1", DIMSE_PORT=port, DIMSE_NATS_DISABLED=True
            ),
        ),
        (dicomweb.main, DicomwebSettings(**events, **db, **space, STOW_URGENT_MODALITIES="XA", HTTP_PORT=web)),
    ]
    for name, binding, kind, hook in (
        ("instances", instance_binding, InstanceBindingSettings, hooks[0]),
        ("studies", study_binding, StudyBindingSettings, hooks[1]),
    ):
        chosen = kind(**events, BINDING_NAME=name, WEBHOOK_ENDPOINT=hook.url, TARGET_CONCURRENCY=1)
        services.append((binding.main, chosen))
    async with AsyncExitStack() as stack:
        for main, settings in services:
            await stack.enter_async_context(running(main, settings))
        yield port, web, EventSubjects(root, root)


async def test_urgent_instances_and_their_revisions_overtake(nats_server, database, s3_server, bucket, tmp_path):
    backlog = [instance() for _ in range(BACKLOG)]
    by_dimse, by_stow = stat(), instance(Modality="XA")
    urgent = [str(by_dimse.StudyInstanceUID), str(by_stow.StudyInstanceUID)]
    hooks = [Slow(), Slow()]
    async with site(nats_server, database, s3_server, bucket, tmp_path, hooks) as (port, web, subjects):
        with hooks[0], hooks[1]:
            await send(port, tmp_path, *backlog)
            await eventually(lambda: all(hook.requests for hook in hooks))
            await send(port, tmp_path, by_dimse)
            await stow(web, by_stow)
            await given_out(nats_server.url, subjects, ["instances", "studies"])
            for hook in hooks:
                assert len(hook.requests) == 1
                hook.answers.set()
            await eventually(lambda: all(len(hook.requests) == BACKLOG + 2 for hook in hooks))
    everything = sorted([*(str(one.StudyInstanceUID) for one in backlog), *urgent])
    for hook in hooks:
        told = hook.studies()
        assert sorted(told) == everything
        assert set(urgent) <= set(told[:AHEAD])


async def send(port: int, folder: Path, *datasets: pydicom.Dataset) -> None:
    paths = [str(written(folder / f"{generate_uid()}.dcm", one)) for one in datasets]
    code, output = await dcmtk("storescu", "127.0.0.1", str(port), *paths, title=TITLE)
    assert code == 0, output


async def stow(port: int, dataset: pydicom.Dataset) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        content = part10(dataset)
        answer = await client.post("/stow-rs/studies", content=content, headers={"content-type": "application/dicom"})
        assert answer.status_code == 200, answer.text


async def given_out(url: str, subjects: EventSubjects, consumers: list[str]) -> None:
    """Return when both urgent events have come for each consumer, and one waits for the hand that is busy."""
    client = await nats.connect(url)
    try:
        js = client.jetstream()
        async with asyncio.timeout(60):
            for consumer in consumers:
                while True:
                    lane = await js.consumer_info(subjects.event_stream, urgent_durable(consumer))
                    if lane.num_ack_pending and lane.num_ack_pending + (lane.num_pending or 0) == 2:
                        break
                    await asyncio.sleep(0.05)
    finally:
        await client.close()

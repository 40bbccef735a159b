"""DIMSE ingestion with its real neighbours: event processor, PostgreSQL, S3, NATS; DCMTK as peers."""

import asyncio
import re
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import psycopg
import pytest
from pydicom.uid import CTImageStorage, generate_uid

from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.apps.dimse_ingestion.main import main as ingestion_main
from imaging_services.apps.dimse_ingestion.settings import Settings as IngestionSettings
from imaging_services.apps.dimse_proxy.main import main as proxy_main
from imaging_services.apps.dimse_proxy.settings import Settings as ProxySettings
from imaging_services.apps.event_driven_ingestion.main import main as processor_main
from imaging_services.apps.event_driven_ingestion.settings import Settings as ProcessorSettings
from imaging_services.domain.dicom.command_set import store_request
from imaging_services.domain.dicom.dimse import ProposedContext
from support.commitment_scu import CommitmentScu, successes, transaction
from support.dcmtk import dcmtk, written
from support.instances import EXPLICIT, encoded, instance
from support.ports import a_free_port
from support.retrieve_scu import cancelled
from support.services import running
from support.storescp import ScriptedScp


@dataclass
class Site:
    """A running ingestion, a proxy before it when asked for, and what is beneath."""

    ingestion: int
    conninfo: str
    s3: object
    bucket: str
    settings: IngestionSettings
    proxy: int = 0

    def rows(self, query: str) -> list[tuple]:
        with psycopg.connect(self.conninfo) as connection:
            return connection.execute(query).fetchall()

    def objects(self) -> int:
        return self.s3.client().list_objects_v2(Bucket=self.bucket)["KeyCount"]


@pytest.fixture
def site(nats_server, database, s3_server, bucket, tmp_path):
    """Opens a site; ``http`` makes the ingestion query and record by way of the processor, ``mode`` adds a proxy,
    ``target`` its target AE's port; ``started`` False leaves the ingestion to the test."""

    @asynccontextmanager
    async def open_site(mode: str | None = None, http: bool = False, target: int = 0, started: bool = True, **more):
        root, config = f"t{uuid.uuid4().hex}", tmp_path / "bucket"
        config.mkdir(exist_ok=True)
        host, port = s3_server.endpoint.rsplit(":", 1)
        for key, value in {
            "BUCKET_HOST": host,
            "BUCKET_PORT": port,
            "BUCKET_NAME": bucket,
            "AWS_ACCESS_KEY_ID": s3_server.access_key_id,
            "AWS_SECRET_ACCESS_KEY": s3_server.secret_access_key,
        }.items():
            (config / key).write_text(value)
        events = {"EVENTS_NATS_URL": nats_server.url, "EVENTS_NATS_SUBJECT_ROOT": root, "EVENTS_STREAM": root}
        db = {
            "DB_HOST": database.host,
            "DB_PORT": database.port,
            "DB_NAME": database.name,
            "DB_USER": database.user,
            "DB_PASS": database.password,
        }
        query, dimse = a_free_port(), a_free_port()
        nats = {"DIMSE_NATS_URL": nats_server.url, "DIMSE_NATS_SUBJECT_ROOT": root, "DIMSE_HOST": "127.0.0.1"}
        processor = ProcessorSettings(**events, **db, HTTP_PORT=query)
        ingestion = IngestionSettings(
            **events,
            **nats,
            **(
                {"QUERY_ENDPOINT": f"http://127.0.0.1:{query}/query"}
                if http
                else {**db, "EVENTS_RECORDED_BY": "service"}
            ),
            DIMSE_PORT=dimse,
            PROVIDER_NAME="space",
            BUCKET_CONFIG_PATH=config,
            WADO_INTERNAL_ENDPOINT="http://wado/wado-rs",
            SPOOL_DIR=tmp_path,
            DRAIN_SECONDS=3,
            **more,
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(running(processor_main, processor))
            if started:
                await stack.enter_async_context(running(ingestion_main, ingestion))
            opened = Site(dimse, database.conninfo, s3_server, bucket, ingestion)
            if mode:
                opened.proxy = a_free_port()
                to = {"DIMSE_TARGET_HOST": "127.0.0.1", "DIMSE_TARGET_PORT": target} if target else {}
                settings = ProxySettings(
                    **nats, **to, DIMSE_PORT=opened.proxy, DIMSE_DELIVERY_MODE=mode, DRAIN_SECONDS=3
                )
                await stack.enter_async_context(running(proxy_main, settings))
            yield opened

    return open_site


async def send(port: int, *paths, title: str) -> tuple[int, str]:
    return await dcmtk("storescu", "-v", "127.0.0.1", str(port), *map(str, paths), title=title)


async def eventually(condition, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


async def test_echo_store_and_find_directly(site, tmp_path):
    study, series = generate_uid(), generate_uid()
    paths = [
        written(
            tmp_path / f"{number}.dcm",
            instance(
                StudyInstanceUID=study,
                SeriesInstanceUID=series,
                SpecificCharacterSet="ISO_IR 100",
                PatientName="Müller^Jürgen",
                PatientID="P1",
                StudyDate="20200615",
                InstanceNumber=number,
            ),
        )
        for number in range(1, 4)
    ]
    async with site() as opened:
        port = str(opened.ingestion)
        code, output = await dcmtk("echoscu", "127.0.0.1", port, title="DIMSE_INGESTION")
        assert code == 0, output
        code, output = await send(opened.ingestion, *paths, *paths, title="DIMSE_INGESTION")
        assert code == 0, output
        # success means recorded: nothing has to be waited for
        assert opened.rows("SELECT count(*) FROM dicom_instance") == [(3,)]
        assert opened.objects() == 3

        async def find(*keys: str, root: str = "-S") -> str:
            arguments = [part for key in keys for part in ("-k", key)]
            code, output = await dcmtk("findscu", "-v", root, *arguments, "127.0.0.1", port, title="DIMSE_INGESTION")
            assert code == 0, output
            return output

        for keys, count in (
            (("QueryRetrieveLevel=STUDY", "StudyInstanceUID", "PatientName=M*"), 1),
            (("QueryRetrieveLevel=STUDY", "StudyInstanceUID", "PatientName=X*"), 0),
            (("QueryRetrieveLevel=STUDY", "StudyDate=20200101-20201231"), 1),
            (("QueryRetrieveLevel=STUDY", "StudyDate=20210101-"), 0),
            ((f"StudyInstanceUID=1.2.3\\{study}", "QueryRetrieveLevel=STUDY"), 1),
            ((f"StudyInstanceUID={study}", "QueryRetrieveLevel=SERIES", "SeriesInstanceUID"), 1),
            (
                (
                    f"StudyInstanceUID={study}",
                    f"SeriesInstanceUID={series}",
                    "QueryRetrieveLevel=IMAGE",
                    "SOPInstanceUID",
                ),
                3,
            ),
        ):
            output = await find(*keys)
            assert len(re.findall(r"Find Response: \d+ \(Pending", output)) == count, output
            assert "(Success)" in output
        found = await find("QueryRetrieveLevel=PATIENT", "PatientID=P1", "PatientName", root="-P")
        assert "ISO_IR 192" in found
        assert "DIMSE_INGESTION" in found
        assert "StudyInstanceUID" not in found.split("Find Response")[1]
        found = await find("QueryRetrieveLevel=SERIES", "Modality=CT")
        assert "DataSetDoesNotMatchSOPClass" in found, found  # DCMTK's name of A900H


@pytest.mark.parametrize("mode", ["durable", "confirmed"])
async def test_through_the_proxy(site, tmp_path, mode):
    study = generate_uid()
    paths = [written(tmp_path / f"{number}.dcm", instance(StudyInstanceUID=study)) for number in range(20)]
    async with site(mode) as opened:
        code, output = await send(opened.proxy, *paths, title="DIMSE")
        assert code == 0, output
        if mode == "durable":
            await eventually(lambda: opened.rows("SELECT count(*) FROM dicom_instance") == [(20,)])
        assert opened.rows("SELECT count(*) FROM dicom_instance") == [(20,)]
        assert opened.objects() == 20
        code, output = await dcmtk(
            *("findscu", "-v", "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"),
            *("-k", "NumberOfStudyRelatedInstances", "127.0.0.1", str(opened.proxy)),
            title="DIMSE",
        )
        assert code == 0, output
        assert len(re.findall(r"Find Response: \d+ \(Pending", output)) == 1, output
        assert "[20]" in output
        code, output = await send(opened.proxy, *paths, title="DIMSE")
        assert code == 0, output
        await asyncio.sleep(1)
        assert opened.rows("SELECT count(*) FROM dicom_instance") == [(20,)]


async def test_retrieve_and_commitment_through_the_proxy(site, tmp_path):
    study = generate_uid()
    instances = [instance(StudyInstanceUID=study) for _ in range(20)]
    uids = sorted(one.SOPInstanceUID for one in instances)
    paths = [written(tmp_path / f"{number}.dcm", one) for number, one in enumerate(instances)]
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}")
    with ScriptedScp() as outside, CommitmentScu() as hospital:
        known = tmp_path / "dimse"
        known.mkdir()
        ways = (f"OUTSIDE:127.0.0.1:{outside.port}", "DEST:proxy", "REQUESTOR:proxy")
        (known / "KNOWN_AES").write_text("\n".join(ways))
        async with site("confirmed", target=hospital.port, DIMSE_CONFIG_PATH=known) as opened:
            port = str(opened.proxy)
            code, output = await send(opened.proxy, *paths, title="DIMSE")
            assert code == 0, output
            code, output = await dcmtk(
                "movescu", "-d", "-S", "-aem", "OUTSIDE", *keys, "127.0.0.1", port, title="DIMSE"
            )
            assert code == 0, output
            assert "0x0000" in output.split("Received Final Move Response")[1], output
            assert sorted(outside.stored) == uids
            # to the AE behind the proxy, as far as the requestor wants it
            responses, _ = await asyncio.to_thread(cancelled, opened.proxy, "DIMSE", study, "move")
            assert responses[-1].Status == 0xFE00
            assert responses[-1].NumberOfCompletedSuboperations == len(hospital.stored) > 0
            assert responses[-1].NumberOfRemainingSuboperations == 20 - len(hospital.stored) > 0
            assert set(hospital.stored) < set(uids)
            assert await asyncio.to_thread(hospital.ask, opened.proxy, "DIMSE", transaction(*instances)) == [0x0000]
            await asyncio.to_thread(hospital.wait_for, 1)
    assert hospital.over == [True]
    assert successes(hospital.reports[0][1]) == set(uids)


async def test_a_storage_commitment_outlives_the_ingestion(site, tmp_path):
    one, known = instance(), tmp_path / "dimse"
    known.mkdir()
    path = written(tmp_path / "one.dcm", one)
    with CommitmentScu() as scu:
        async with site(started=False, DIMSE_CONFIG_PATH=known, DIMSE_COMMITMENT_WAIT_SECONDS=0.1) as opened:
            async with running(ingestion_main, opened.settings):
                code, output = await send(opened.ingestion, path, title="DIMSE_INGESTION")
                assert code == 0, output
                # nobody knows the requestor, so nothing can be reported yet
                asked = await asyncio.to_thread(scu.ask, opened.ingestion, "DIMSE_INGESTION", transaction(one))
                assert asked == [0x0000]
            (known / "KNOWN_AES").write_text(f"REQUESTOR:127.0.0.1:{scu.port}")
            async with running(ingestion_main, opened.settings):
                await asyncio.to_thread(scu.wait_for, 1)
    assert successes(scu.reports[0][1]) == {one.SOPInstanceUID}


HELD = "SELECT count(*) FROM association JOIN association_study USING (association_id) WHERE released_at IS NULL"


@asynccontextmanager
async def associated(port: int, title: str):
    """An association with one CT context; gives a function that stores bytes as an instance."""
    context = ProposedContext(1, CTImageStorage, (EXPLICIT,))
    requestor = await RemoteAE("127.0.0.1", port).associate(
        calling_ae_title="MODALITY", called_ae_title=title, contexts=(context,)
    )

    async def store(sop_instance_uid: str, content: bytes) -> int:
        return (await requestor.store(1, store_request(CTImageStorage, sop_instance_uid), content)).status

    yield store
    await requestor.release()


@pytest.mark.parametrize("http", [False, True])
async def test_holds_live_as_long_as_the_association(site, http):
    async with site("confirmed", http=http) as opened:
        for port, title in ((opened.proxy, "DIMSE"), (opened.ingestion, "DIMSE_INGESTION")):
            dataset = instance()
            async with associated(port, title) as store:
                assert await store(dataset.SOPInstanceUID, encoded(dataset)) == 0
                assert opened.rows(HELD) == [(1,)]
            await eventually(lambda: opened.rows(HELD) == [(0,)])


async def test_bad_data_sets_get_their_status_and_leave_nothing(site):
    good = instance()
    async with site("confirmed") as opened:
        for port, title in ((opened.proxy, "DIMSE"), (opened.ingestion, "DIMSE_INGESTION")):
            async with associated(port, title) as store:
                assert await store(good.SOPInstanceUID, encoded(instance())) == 0xA900
                assert await store(good.SOPInstanceUID, b"this is not DICOM at all, whatever you say") == 0xC000
                assert await store(good.SOPInstanceUID, encoded(instance(StudyInstanceUID=None))) in (0xA900, 0xC000)
                assert await store(good.SOPInstanceUID, encoded(good)) == 0x0000
        assert opened.rows("SELECT count(*) FROM dicom_instance") == [(1,)]
        assert opened.objects() == 1

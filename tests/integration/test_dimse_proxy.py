"""Two proxies over real NATS, with DCMTK at both ends."""

import asyncio
import subprocess
import uuid
from contextlib import AsyncExitStack
from pathlib import Path

import nats
import pydicom
import pynetdicom
import pytest
from pydicom.uid import generate_uid

from imaging_services.adapters.nats.relay_dead_letters import list_relay_dead_letters
from imaging_services.local.ports import free_ports
from support.dcmtk import ENVIRONMENT, written
from support.dcmtk import dcmtk as run_dcmtk
from support.dicom_files import data_set_of, storable_files
from support.instances import instance
from support.peers import dcmtk_program
from support.ports import a_free_port
from support.proxies import proxy
from support.relay import until
from support.senders import send_undecoded
from support.servers import NatsServer, start
from support.storescp import ScriptedScp, storescp


@pytest.fixture
def root():
    return f"t{uuid.uuid4().hex}"


async def dcmtk(program: str, *arguments: str, title: str = "DIMSE", calling: str = "MODALITY") -> tuple[int, str]:
    return await run_dcmtk(program, *arguments, title=title, calling=calling)


def files(folder: Path, count: int, **attributes) -> list[Path]:
    folder.mkdir(exist_ok=True)
    return [written(folder / f"{number}.dcm", instance(**attributes)) for number in range(count)]


def uids(folder: Path) -> set[str]:
    return {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in folder.iterdir()}


@pytest.mark.parametrize("mode", ["durable", "confirmed"])
async def test_both_directions_at_once(nats_server, root, tmp_path, mode):
    here, there = files(tmp_path / "here", 12), files(tmp_path / "there", 12)
    at_a, at_b = tmp_path / "at_a", tmp_path / "at_b"
    with storescp(at_a, "--fork") as target_a, storescp(at_b, "--fork") as target_b:
        async with AsyncExitStack() as stack:
            mode_setting = {"DIMSE_DELIVERY_MODE": mode}
            a = await stack.enter_async_context(proxy(nats_server.url, root, "A", target_a, **mode_setting))
            b = await stack.enter_async_context(proxy(nats_server.url, root, "B", target_b, **mode_setting))
            results = await asyncio.gather(
                dcmtk("storescu", "127.0.0.1", str(a), *map(str, here)),
                dcmtk("storescu", "127.0.0.1", str(b), *map(str, there), title="STORESCP"),
                dcmtk("echoscu", "127.0.0.1", str(a)),
                dcmtk("echoscu", "127.0.0.1", str(b)),
            )
            assert [code for code, _ in results] == [0, 0, 0, 0], results
            await until(lambda: len(list(at_a.iterdir())) == 12 and len(list(at_b.iterdir())) == 12)
            await until(lambda: uids(at_b) == uids(tmp_path / "here") and uids(at_a) == uids(tmp_path / "there"))


async def test_durable_waits_for_the_far_side_and_its_target(nats_server, root, tmp_path):
    sent = files(tmp_path / "sent", 10)
    async with proxy(nats_server.url, root, "A") as a:
        code, output = await dcmtk("storescu", "127.0.0.1", str(a), *map(str, sent))
        assert code == 0, output
        target = a_free_port()
        async with proxy(nats_server.url, root, "B", target):
            await asyncio.sleep(1)  # the target is switched off still
    with ScriptedScp() as scp:
        async with proxy(nats_server.url, root, "B", scp.port):
            await until(lambda: len(scp.stored) == 10)
            await asyncio.sleep(0.5)
            assert sorted(scp.stored) == sorted(uids(tmp_path / "sent"))
            assert set(scp.calling) == {"DIMSE"}
            assert set(scp.called) == {"STORESCP"}


async def test_confirmed_gives_the_targets_status(nats_server, root, tmp_path):
    with ScriptedScp() as scp:
        async with (
            proxy(nats_server.url, root, "B", scp.port, DIMSE_DELIVERY_MODE="confirmed"),
            proxy(nats_server.url, root, "A", DIMSE_DELIVERY_MODE="confirmed") as a,
        ):
            statuses = await asyncio.to_thread(
                send, a, [instance() for _ in range(4)], scp.script, [0, 0xA900, 0xB000, 0xA700]
            )
            assert statuses == [0, 0xA900, 0xB000, 0xA700]
            assert len(scp.stored) == 1


def send(port, datasets, script=None, wanted=(), title="DIMSE", calling="MODALITY") -> list[int]:
    ae = pynetdicom.AE(ae_title=calling)
    ae.add_requested_context(datasets[0].SOPClassUID, "1.2.840.10008.1.2.1")
    association = ae.associate("127.0.0.1", port, ae_title=title)
    assert association.is_established
    if script is not None:
        script.extend(wanted)
    statuses = []
    for dataset in datasets:
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
        statuses.append(association.send_c_store(dataset).Status)
    association.release()
    return statuses


async def test_confirmed_accepts_what_the_target_accepts(nats_server, root):
    def accepted(port: int) -> list[str]:
        ae = pynetdicom.AE(ae_title="MODALITY")
        ae.add_requested_context("1.2.840.10008.5.1.4.1.1.2", ["1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2"])
        ae.add_requested_context("1.2.840.10008.5.1.4.1.1.4", ["1.2.840.10008.1.2.4.70"])
        association = ae.associate("127.0.0.1", port, ae_title="DIMSE")
        contexts = [str(context.transfer_syntax[0]) for context in association.accepted_contexts]
        association.release()
        return contexts

    with ScriptedScp(syntaxes=["1.2.840.10008.1.2"]) as scp:
        async with (
            proxy(nats_server.url, root, "B", scp.port),
            proxy(nats_server.url, root, "A", DIMSE_DELIVERY_MODE="confirmed") as a,
        ):
            assert await asyncio.to_thread(accepted, a) == ["1.2.840.10008.1.2"]


async def test_refusal_for_good_is_a_dead_letter(nats_server, root):
    with ScriptedScp() as scp:
        scp.script.extend([0xA900])
        async with proxy(nats_server.url, root, "B", scp.port), proxy(nats_server.url, root, "A") as a:
            assert await asyncio.to_thread(send, a, [instance(), instance()]) == [0, 0]
            await until(lambda: len(scp.stored) == 1)
            client = await nats.connect(nats_server.url)
            async with asyncio.timeout(60):
                while not (letters := [letter async for letter in list_relay_dead_letters(client, root, "B")]):
                    await asyncio.sleep(0.05)
            await client.close()
    assert [letter.reason for letter in letters] == ["C-STORE status A900H"]


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's own files are odd on purpose
async def test_every_transfer_syntax_arrives_byte_for_byte(nats_server, root, tmp_path):
    wanted = [file for file in storable_files() if len(file.data_set) < 2_000_000][:60]
    (tmp_path / "sent").mkdir()
    with storescp(tmp_path / "received", "+xa", "--fork") as target:
        async with proxy(nats_server.url, root, "B", target), proxy(nats_server.url, root, "A") as a:
            address = {"host": "127.0.0.1", "port": a, "ae_title": "DIMSE"}
            statuses = await asyncio.to_thread(send_undecoded, wanted, address, tmp_path / "sent")
            good = {file.sop_instance_uid: file for file in wanted if statuses[file.path] == 0}
            received = {}

            def arrived() -> bool:
                for path in (tmp_path / "received").iterdir():
                    received[path.name.split(".", 1)[1]] = path
                return len(received) >= len(good) - 5

            await until(arrived)
            await asyncio.sleep(1)
            assert arrived()
    assert len(received) > 20
    sent = {}
    for file in wanted:
        sent.setdefault(file.sop_instance_uid, []).append(file.data_set)
    for uid, path in received.items():
        assert data_set_of(path.read_bytes()) in sent[uid], uid


async def test_find_passes_through_both_proxies(nats_server, root, tmp_path):
    port, database = a_free_port(), tmp_path / "db"
    database.mkdir()
    study = generate_uid()
    (file,) = files(tmp_path / "sent", 1, StudyInstanceUID=study, PatientName="Doe^Jane")
    configuration = tmp_path / "dcmqrscp.cfg"
    configuration.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nQR {database} RW (200, 1024mb) ANY\nAETable END\n"
    )
    process = subprocess.Popen([dcmtk_program("dcmqrscp"), "-c", str(configuration)], env=ENVIRONMENT)
    try:
        async with (
            proxy(nats_server.url, root, "B", port, DIMSE_TARGET_AE="QR"),
            proxy(nats_server.url, root, "A", DIMSE_DELIVERY_MODE="confirmed") as a,
        ):
            for _ in range(100):
                code, output = await dcmtk("echoscu", "127.0.0.1", str(a))
                if code == 0:
                    break
                await asyncio.sleep(0.1)
            assert code == 0, output
            code, output = await dcmtk("storescu", "127.0.0.1", str(a), str(file))
            assert code == 0, output
            found, output = await dcmtk(
                *("findscu", "-v", "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName=Doe*"),
                *("-k", "StudyInstanceUID", "127.0.0.1", str(a)),
            )
            assert found == 0, output
            assert study in output, output
            none, output = await dcmtk(
                *(
                    "findscu",
                    "-v",
                    "-S",
                    "-k",
                    "QueryRetrieveLevel=STUDY",
                    "-k",
                    "StudyInstanceUID=1.2.3",
                    "127.0.0.1",
                    str(a),
                )
            )
            assert none == 0, output
            assert "Find Response: 1" not in output
    finally:
        process.terminate()
        process.wait(10)


async def test_titles_and_limits(nats_server, root, tmp_path):
    (file,) = files(tmp_path / "sent", 1)
    async with proxy(
        nats_server.url, root, "A", DIMSE_AE="MYSELF", DIMSE_ALLOWED_CALLING_AE="CT1, MR1", DIMSE_MAX_ASSOCIATIONS=1
    ) as a:
        arguments = ("storescu", "-v", "127.0.0.1", str(a), str(file))
        for called, calling, good, why in (
            ("MYSELF", "CT1", True, ""),
            ("STORESCP", "MR1", True, ""),
            ("OTHER", "CT1", False, "Called AE Title Not Recognized"),
            ("MYSELF", "US1", False, "Calling AE Title Not Recognized"),
        ):
            code, output = await dcmtk(*arguments, title=called, calling=calling)
            assert (code == 0) is good, output
            assert why in output
        ae = pynetdicom.AE(ae_title="CT1")
        ae.add_requested_context("1.2.840.10008.1.1")
        first = await asyncio.to_thread(ae.associate, "127.0.0.1", a, ae_title="MYSELF")
        code, output = await dcmtk(*arguments, title="MYSELF", calling="MR1")
        assert code != 0
        assert "Local Limit Exceeded" in output
        await asyncio.to_thread(first.release)


async def test_a_store_while_nats_is_away_is_refused_and_the_association_goes_on(tmp_path, root):
    server = NatsServer(tmp_path / "nats", *free_ports(1))
    child = start(server.program())
    try:
        async with proxy(server.url, root, "A", DIMSE_NATS_REPLY_TIMEOUTSECONDS=3) as a:
            ae = pynetdicom.AE(ae_title="MODALITY")
            ae.add_requested_context("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1")

            def store(association) -> int:
                dataset = instance()
                dataset.file_meta = pydicom.dataset.FileMetaDataset()
                dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
                return association.send_c_store(dataset).Status

            association = await asyncio.to_thread(ae.associate, "127.0.0.1", a, ae_title="DIMSE")
            assert await asyncio.to_thread(store, association) == 0
            child.stop()
            assert await asyncio.to_thread(store, association) == 0xA700
            child = start(server.program())
            for _ in range(100):
                status = await asyncio.to_thread(store, association)
                if status == 0:
                    break
                await asyncio.sleep(0.1)
            assert status == 0
            await asyncio.to_thread(association.release)
    finally:
        child.stop()


async def test_confirmed_without_a_far_side_is_refused_at_once(nats_server, root, tmp_path):
    patient = {"DIMSE_DELIVERY_MODE": "confirmed", "DIMSE_NATS_REPLY_TIMEOUTSECONDS": 600}
    async with proxy(nats_server.url, root, "A", **patient) as a:
        (file,) = files(tmp_path / "sent", 1)
        code, output = await asyncio.wait_for(dcmtk("storescu", "-v", "127.0.0.1", str(a), str(file)), 60)
        assert code != 0
        assert "Association Rejected" in output

"""Services other than storage through two proxies over real NATS: nothing is changed on the way, in both directions."""

import asyncio
import os
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, build_role
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from support.dcmtk import ENVIRONMENT, dcmtk, written
from support.instances import instance, part10
from support.orthanc import Orthanc
from support.peers import dcmtk_program
from support.ports import a_free_port
from support.proxies import proxy
from support.relay import until
from support.scripted_services import COMMITMENT, MPPS, PRINT, STUDY_ROOT_FIND, ServicesScp
from support.servers import Nats
from support.storescp import storescp
from support.tls import Authority, an_authority

FILM_SESSION, FILM_BOX, IMAGE_BOX, PRINTER = (f"1.2.840.10008.5.1.1.{part}" for part in ("1", "2", "4", "16"))
PRINTER_INSTANCE = "1.2.840.10008.5.1.1.17"


@pytest.fixture
def root() -> str:
    return f"t{uuid.uuid4().hex}"


@pytest.fixture
async def pair(nats_server: Nats, root: str) -> AsyncIterator[tuple[int, int, ServicesScp, ServicesScp]]:
    """Ports of the proxies A and B, and the AEs behind them."""
    with ServicesScp() as behind_a, ServicesScp() as behind_b:
        async with AsyncExitStack() as stack:
            title = {"DIMSE_TARGET_AE": "SERVICES"}
            a = await stack.enter_async_context(proxy(nats_server.url, root, "A", behind_a.port, **title))
            b = await stack.enter_async_context(proxy(nats_server.url, root, "B", behind_b.port, **title))
            yield a, b, behind_a, behind_b


async def asking(port: int, classes: list[str], work: Callable[[Any], Any], *, title: str, **options: Any) -> Any:
    """Open an association with pynetdicom, do something with it, and release it."""

    def run() -> Any:
        ae = AE(ae_title="MODALITY")
        for uid in classes:
            ae.add_requested_context(uid, ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"])
        association = ae.associate("127.0.0.1", port, ae_title=title, max_pdu=0, **options)
        assert association.is_established
        try:
            return work(association)
        finally:
            association.release()

    return await asyncio.to_thread(run)


def a_film(association: Any, pixels: bytes) -> list[int]:
    """A film with one image, as print management has it (PS3.4 annex H)."""
    session, box, image = generate_uid(), generate_uid(), generate_uid()
    labels = Dataset()
    labels.FilmSessionLabel = "one film"
    picture = Dataset()
    picture.PixelData = pixels
    picture["PixelData"].VR = "OW"
    answers = [
        association.send_n_get([0x21100030], PRINTER, PRINTER_INSTANCE, meta_uid=PRINT),
        association.send_n_create(labels, FILM_SESSION, session, meta_uid=PRINT),
        association.send_n_create(labels, FILM_BOX, box, meta_uid=PRINT),
        association.send_n_set(picture, IMAGE_BOX, image, meta_uid=PRINT),
        association.send_n_action(None, 1, FILM_BOX, box, meta_uid=PRINT),
    ]
    assert answers[0][1].PrinterName == "FILM"
    assert answers[3][1].PixelData == pixels
    deleted = association.send_n_delete(FILM_BOX, box, meta_uid=PRINT)
    return [*(answer[0].Status for answer in answers), deleted.Status]


async def test_print_management_goes_over_one_association(pair: tuple[int, int, ServicesScp, ServicesScp]) -> None:
    a, _, _, printer = pair
    pixels = os.urandom(12 * 2**20)
    statuses = await asking(a, [PRINT], lambda association: a_film(association, pixels), title="DIMSE")
    assert statuses == [0, 0, 0, 0, 0, 0x0112]
    assert printer.kinds() == ["N-GET", "N-CREATE", "N-CREATE", "N-SET", "N-ACTION", "N-DELETE"]
    assert len(printer.associations(*printer.kinds())) == 1
    assert printer.asked[3][2].PixelData == pixels
    await until(lambda: printer.released == [0])


async def test_procedure_steps(pair: tuple[int, int, ServicesScp, ServicesScp]) -> None:
    a, _, _, ris = pair
    step = Dataset()
    step.PerformedProcedureStepStatus, step.PatientName = "IN PROGRESS", "Doe^Jane"

    def perform(association: Any) -> list[int]:
        uid = generate_uid()
        created, answer = association.send_n_create(step, MPPS, uid)
        assert answer.PatientName == "Doe^Jane"
        step.PerformedProcedureStepStatus = "COMPLETED"
        return [
            created.Status,
            association.send_n_set(step, MPPS, uid)[0].Status,
        ]

    assert await asking(a, [MPPS], perform, title="DIMSE") == [0, 0]
    assert [data.PerformedProcedureStepStatus for _, _, data in ris.asked] == ["IN PROGRESS", "COMPLETED"]


async def test_commitment_is_reported_on_a_new_association(pair: tuple[int, int, ServicesScp, ServicesScp]) -> None:
    a, b, modality, archive = pair
    transaction = Dataset()
    transaction.TransactionUID = generate_uid()

    def ask(association: Any) -> int:
        return int(association.send_n_action(transaction, 1, COMMITMENT, "1.2.840.10008.1.20.1.1")[0].Status)

    def report(association: Any) -> int:
        return int(association.send_n_event_report(transaction, 1, COMMITMENT, "1.2.840.10008.1.20.1.1")[0].Status)

    assert await asking(a, [COMMITMENT], ask, title="DIMSE") == 0
    assert archive.kinds() == ["N-ACTION"]
    roles = [build_role(COMMITMENT, scp_role=True)]
    assert await asking(b, [COMMITMENT], report, title="DIMSE", ext_neg=roles) == 0
    assert modality.kinds() == ["N-EVENT-REPORT"]
    assert modality.asked[0][2].TransactionUID == archive.asked[0][2].TransactionUID == transaction.TransactionUID


async def test_a_query_is_cancelled_at_the_target(pair: tuple[int, int, ServicesScp, ServicesScp]) -> None:
    a, _, _, archive = pair
    wanted = Dataset()
    wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "STUDY", ""

    def find(association: Any) -> list[int]:
        statuses = []
        for status, _ in association.send_c_find(wanted, STUDY_ROOT_FIND, msg_id=7):
            statuses.append(status.Status)
            if len(statuses) == 3:
                association.send_c_cancel(7, association.accepted_contexts[0].context_id)
        return statuses

    statuses = await asking(a, [STUDY_ROOT_FIND], find, title="DIMSE")
    assert (set(statuses[:-1]), statuses[-1]) == ({0xFF00}, 0xFE00)
    assert archive.kinds() == ["C-FIND", "C-CANCEL"]


async def test_extended_negotiation_is_the_targets(nats_server: Nats, root: str) -> None:
    """Without a far side nothing is accepted, and the association is."""
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid, item.service_class_application_information = STUDY_ROOT_FIND, b"\1\1"
    async with proxy(nats_server.url, root, "A") as a:
        found = await asking(
            a, [STUDY_ROOT_FIND], lambda one: one.acceptor.sop_class_extended, title="DIMSE", ext_neg=[item]
        )
        assert found == {}


async def test_worklist_with_wlmscpfs(nats_server: Nats, root: str, tmp_path: Path) -> None:
    folder = tmp_path / "WORKLIST"
    folder.mkdir()
    (folder / "lockfile").touch()
    step = Dataset()
    step.Modality = "MR"
    for number in range(60):
        entry = {"PatientName": f"Doe^{number:02}", "AccessionNumber": "ACC1", "ScheduledProcedureStepSequence": [step]}
        written(folder / f"{number}.wl", instance(**entry))
    port = a_free_port()
    process = subprocess.Popen([dcmtk_program("wlmscpfs"), "-dfr", "-dfp", tmp_path, str(port)], env=ENVIRONMENT)
    try:
        async with (
            proxy(nats_server.url, root, "B", port, DIMSE_TARGET_AE="WORKLIST"),
            proxy(nats_server.url, root, "A") as a,
        ):
            keys = [
                "-k",
                "PatientName=Doe*",
                "-k",
                "AccessionNumber",
                "-k",
                "ScheduledProcedureStepSequence[0].Modality",
            ]
            async with asyncio.timeout(60):
                while True:
                    code, output = await dcmtk("findscu", "-v", "-W", *keys, "127.0.0.1", str(a), title="DIMSE")
                    if output.count("Find Response: ") >= 60:
                        break
                    await asyncio.sleep(0.1)
            assert code == 0
            assert output.count("[ACC1") == 60
            assert "Doe^59" in output
    finally:
        process.terminate()
        process.wait(10)


async def test_move_with_dcmqrscp_and_movescu(nats_server: Nats, root: str, tmp_path: Path) -> None:
    port, database = a_free_port(), tmp_path / "db"
    database.mkdir()
    with storescp(tmp_path / "received", ae_title="WORKSTATION") as workstation:
        configuration = tmp_path / "dcmqrscp.cfg"
        configuration.write_text(
            f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\nHostTable BEGIN\n"
            f"workstation = (WORKSTATION, localhost, {workstation})\nHostTable END\n"
            "VendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\nQR {database} RW (200, 1024mb) ANY\nAETable END\n"
        )
        process = subprocess.Popen([dcmtk_program("dcmqrscp"), "-c", str(configuration)], env=ENVIRONMENT)
        try:
            async with (
                proxy(nats_server.url, root, "B", port, DIMSE_TARGET_AE="QR"),
                proxy(nats_server.url, root, "A", DIMSE_DELIVERY_MODE="confirmed") as a,
            ):
                study = generate_uid()
                files = [str(written(tmp_path / f"{n}.dcm", instance(StudyInstanceUID=study))) for n in range(4)]
                async with asyncio.timeout(60):
                    while (await dcmtk("echoscu", "127.0.0.1", str(a), title="DIMSE"))[0] != 0:
                        await asyncio.sleep(0.1)
                code, output = await dcmtk("storescu", "127.0.0.1", str(a), *files, title="DIMSE")
                assert code == 0, output
                keys = ["-S", "-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}"]
                where = ["127.0.0.1", str(a)]
                code, output = await dcmtk("movescu", "-v", "-aem", "WORKSTATION", *keys, *where, title="DIMSE")
                assert code == 0, output
                assert "Success" in output
                assert len(list((tmp_path / "received").iterdir())) == 4
        finally:
            process.terminate()
            process.wait(10)


def orthanc(folder: Path, title: str, authority: Authority, modalities: dict[str, tuple[str, int]]) -> Orthanc:
    """One that speaks DICOM by TLS only, with certificates of the authority on both sides."""
    settings = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(authority.certificate),
        "DicomTlsPrivateKey": str(authority.key),
        "DicomTlsTrustedCertificates": str(authority.ca_file),
        "DicomModalities": {
            name: {"AET": aet, "Host": "127.0.0.1", "Port": port, "UseDicomTls": True}
            for name, (aet, port) in modalities.items()
        },
    }
    return Orthanc(folder, ae_title=title, settings=settings)


async def test_orthanc_at_both_ends_with_tls(nats_server: Nats, root: str, tmp_path: Path) -> None:
    """It stores with storage commitment, whose report comes back on a new association, queries, and retrieves."""
    a, b, authority = a_free_port(), a_free_port(), an_authority(tmp_path)
    modality = orthanc(tmp_path / "modality", "MODALITY", authority, {"archive": ("DIMSE", a)})
    known = {"modality": ("DIMSE", b), "workstation": ("MODALITY", modality.dicom_port)}
    archive = orthanc(tmp_path / "archive", "ARCHIVE", authority, known)
    files = {"CERT_FILE": authority.certificate, "KEY_FILE": authority.key, "CA_FILE": authority.ca_file}
    common = {f"{side}_TLS_{name}": path for name, path in files.items() for side in ("DIMSE", "DIMSE_TARGET")}
    common |= {"DIMSE_TLS_ENABLED": True, "DIMSE_TARGET_TLS_ENABLED": True, "DIMSE_DELIVERY_MODE": "confirmed"}
    near = {**common, "DIMSE_PORT": a, "DIMSE_TARGET_AE": "MODALITY"}
    far = {**common, "DIMSE_PORT": b, "DIMSE_TARGET_AE": "ARCHIVE"}
    with modality, archive:
        async with (
            proxy(nats_server.url, root, "A", modality.dicom_port, **near),
            proxy(nats_server.url, root, "B", archive.dicom_port, **far),
        ):
            await asyncio.to_thread(store_and_retrieve, modality, archive)


def store_and_retrieve(modality: Orthanc, archive: Orthanc) -> None:
    study = generate_uid()
    for _ in range(3):
        modality.post("/instances", part10(instance(StudyInstanceUID=study, PatientID="P77")))
    wish = {"Resources": modality.get("/instances"), "StorageCommitment": True}
    transaction = modality.post("/modalities/archive/store", wish)["StorageCommitmentTransactionUID"]
    assert len(archive.get("/instances")) == 3
    deadline = time.monotonic() + 60
    while (report := modality.get(f"/storage-commitment/{transaction}"))["Status"] == "Pending":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert report["Status"] == "Success", report
    assert report["RemoteAET"] == "DIMSE"
    modality.clear()
    query = modality.post("/modalities/archive/query", {"Level": "Study", "Query": {"PatientID": "P77"}})["ID"]
    assert len(modality.get(f"/queries/{query}/answers")) == 1
    modality.post(f"/queries/{query}/retrieve", {"TargetAet": "MODALITY"})
    assert len(modality.get("/instances")) == 3

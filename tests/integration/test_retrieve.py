"""C-MOVE and C-GET of the DIMSE ingestion with real peers: DCMTK, pynetdicom."""

import asyncio
import re
from collections.abc import AsyncIterator

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import ImplicitVRLittleEndian, MRImageStorage, RLELossless, generate_uid

from imaging_services.adapters.dimse.tls_settings import TargetTlsVariables
from imaging_services.domain.errors import BackendUnavailable
from imaging_services.domain.manifest.query import Scope
from imaging_services.local.ports import free_ports
from support.dcmtk import dcmtk
from support.dimse import eventually
from support.dimse_archive import TITLE, archive
from support.instances import instance
from support.retrieve_scu import cancelled, relational_move
from support.storescp import ScriptedScp, storescp
from support.tls import an_authority

STUDY, SERIES = generate_uid(), generate_uid()


def study(count: int = 3, **attributes: object) -> list[pydicom.Dataset]:
    """Instances of one series."""
    attributes = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES, "PatientID": "P1"} | attributes
    return [instance(InstanceNumber=number, **attributes) for number in range(1, count + 1)]


async def move(
    port: int, destination: str, *keys: str, root: str = "-S", more: tuple[str, ...] = ()
) -> tuple[int, str]:
    """DCMTK's movescu; exit code and output."""
    arguments = [part for key in keys for part in ("-k", key)]
    return await dcmtk(
        *("movescu", "-d", root, *more, "-aem", destination, *arguments, "127.0.0.1", str(port)), title=TITLE
    )


async def test_move_at_every_level(tmp_path):
    instances = study()
    other = study(2, SeriesInstanceUID=generate_uid(), SOPClassUID=MRImageStorage)
    another_patient = study(1, StudyInstanceUID=generate_uid(), SeriesInstanceUID=generate_uid(), PatientID="P2")
    uids = [one.SOPInstanceUID for one in instances]
    of_study, of_series = f"StudyInstanceUID={STUDY}", f"SeriesInstanceUID={SERIES}"
    with ScriptedScp() as scp:
        async with archive(tmp_path, {"DEST": scp.port}) as opened:
            await opened.keep(*instances, *other, *another_patient)
            for root, keys, count in (
                ("-S", ("QueryRetrieveLevel=STUDY", of_study), 5),
                ("-S", ("QueryRetrieveLevel=STUDY", rf"{of_study}\{another_patient[0].StudyInstanceUID}"), 6),
                ("-S", ("QueryRetrieveLevel=SERIES", of_study, of_series), 3),
                ("-S", ("QueryRetrieveLevel=IMAGE", of_study, of_series, rf"SOPInstanceUID={uids[0]}\{uids[2]}"), 2),
                ("-P", ("QueryRetrieveLevel=PATIENT", "PatientID=P1"), 5),
                ("-P", ("QueryRetrieveLevel=STUDY", "PatientID=P2", of_study), 0),
                ("-P", ("QueryRetrieveLevel=SERIES", "PatientID=P1", of_study, of_series), 3),
                ("-O", ("QueryRetrieveLevel=PATIENT", "PatientID=P2"), 1),
            ):
                scp.stored.clear()
                code, output = await move(opened.port, "DEST", *keys, root=root)
                assert code == 0, output
                assert "DIMSE Status                  : 0x0000: Success" in output, output
                assert len(set(scp.stored)) == len(scp.stored) == count, (keys, output)
    assert set(scp.called) == {"DEST"}
    assert set(scp.calling) == {TITLE}


async def test_requests_that_cannot_be_served(tmp_path):
    async with archive(tmp_path, {"GONE": free_ports(1)[0]}) as opened:
        await opened.keep(*study(2))
        of_study = f"StudyInstanceUID={STUDY}"
        for destination, keys, status in (
            ("NOBODY", ("QueryRetrieveLevel=STUDY", of_study), "0xa801"),
            ("GONE", ("QueryRetrieveLevel=STUDY", of_study), "0xa702"),
            ("GONE", ("QueryRetrieveLevel=SERIES", f"SeriesInstanceUID={SERIES}"), "0xa900"),
            ("GONE", ("QueryRetrieveLevel=PATIENT", "PatientID=P1"), "0xa900"),
        ):
            _, output = await move(opened.port, destination, *keys)
            final = output.split("Received Final Move Response")[1]
            assert re.search(rf"DIMSE Status +: {status}", final), output


async def test_what_fails_is_counted_and_named(tmp_path):
    instances = study(4)
    with ScriptedScp() as scp:
        async with archive(tmp_path, {"DEST": scp.port}) as opened:
            await opened.keep(*instances)
            location = (await opened.manifest.locate(Scope(STUDY)))[1]
            del opened.space.objects[location.object_name]
            scp.script = [0x0000, 0xB000, 0xA700]
            _, output = await move(opened.port, "DEST", "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY}")
    final = output.split("Received Final Move Response")[1]
    assert "0xb000" in final, output
    for name, count in (("Completed", 1), ("Failed", 2), ("Warning", 1)):
        assert re.search(rf"{name} Suboperations +: {count}\b", final), output
    assert location.sop_instance_uid in final
    assert final.count("\\") >= 1


async def test_get_over_the_same_association(tmp_path):
    large = instance(StudyInstanceUID=STUDY, Rows=2048, Columns=2048, PixelData=bytes(8 * 1024 * 1024))
    instances = [*study(2), *study(1, SOPClassUID=MRImageStorage, SeriesInstanceUID=generate_uid()), large]
    folder = tmp_path / "got"
    folder.mkdir()
    async with archive(tmp_path / "archive", {}, transcoding=True) as opened:
        await opened.keep(*instances[1:])
        await opened.keep(instances[0], syntax=ImplicitVRLittleEndian)
        code, output = await dcmtk(
            *("getscu", "-d", "-S", "-od", str(folder), "-k", "QueryRetrieveLevel=STUDY"),
            *("-k", f"StudyInstanceUID={STUDY}", "127.0.0.1", str(opened.port)),
            title=TITLE,
        )
    assert code == 0, output
    got = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, folder.iterdir())}
    assert {uid: one.PixelData for uid, one in got.items()} == {
        one.SOPInstanceUID: one.PixelData for one in instances
    }, output
    final = output.split("Received C-GET Response")[-1]
    assert re.search(r"Completed Suboperations +: 4\b", output), output
    assert "0x0000" in final, output


@pytest.mark.parametrize("transcoding", [True, False])
async def test_a_peer_of_another_transfer_syntax(tmp_path, transcoding):
    compressed = pydicom.dcmread(get_testdata_file("MR_small_RLE.dcm"))
    compressed.StudyInstanceUID, compressed.SeriesInstanceUID = STUDY, generate_uid()
    compressed.preamble = None
    del compressed.file_meta
    with ScriptedScp(syntaxes=[ImplicitVRLittleEndian]) as scp:
        async with archive(tmp_path, {"DEST": scp.port}, transcoding=transcoding) as opened:
            await opened.keep(*study(1))
            await opened.keep(compressed, syntax=RLELossless)
            _, output = await move(opened.port, "DEST", "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY}")
    final = output.split("Received Final Move Response")[1]
    assert ("0x0000" if transcoding else "0xa702") in final, output
    assert len(scp.stored) == (2 if transcoding else 0)
    assert scp.associations == 1


async def test_a_data_set_that_breaks_off_costs_its_own_sub_operation_only(tmp_path):
    large = instance(
        StudyInstanceUID=STUDY, SeriesInstanceUID=SERIES, InstanceNumber=2, PixelData=bytes(6 * 1024 * 1024)
    )
    instances = study(3)
    instances[1] = large
    with ScriptedScp() as scp:
        async with archive(tmp_path, {"DEST": scp.port}) as opened:
            await opened.keep(*instances)
            whole = opened.space.stream
            key = next(one.object_name for one in await opened.manifest.locate(Scope(STUDY)) if one.size > 6_000_000)

            async def breaking(name: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
                number = 0
                async for block in whole(name, start, length):
                    number += 1
                    if name == key and number > 2:
                        raise BackendUnavailable("the storage space is away")
                    yield block

            opened.space.stream = breaking
            _, output = await move(opened.port, "DEST", "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY}")
    final = output.split("Received Final Move Response")[1]
    assert "0xb000" in final, output
    assert large.SOPInstanceUID in final
    assert scp.stored == [instances[0].SOPInstanceUID, instances[2].SOPInstanceUID]


async def test_a_destination_with_tls(tmp_path):
    ours = an_authority(tmp_path)
    tls = TargetTlsVariables(
        DIMSE_TARGET_TLS_CA_FILE=ours.ca_file,
        DIMSE_TARGET_TLS_CERT_FILE=ours.certificate,
        DIMSE_TARGET_TLS_KEY_FILE=ours.key,
    )
    options = ("+tls", str(ours.key), str(ours.certificate), "+cf", str(ours.ca_file))
    with storescp(tmp_path / "stored", *options, ae_title="SECURE") as port:
        known = {"SECURE": f"{port},tls", "PLAIN": port}
        async with archive(tmp_path / "archive", known, tls=tls) as opened:
            await opened.keep(*study(2))
            keys = ("QueryRetrieveLevel=STUDY", f"StudyInstanceUID={STUDY}")
            for destination, status in (("SECURE", "0x0000"), ("PLAIN", "0xa702")):
                _, output = await move(opened.port, destination, *keys)
                assert status in output.split("Received Final Move Response")[1], output
    assert len(list((tmp_path / "stored").iterdir())) == 2


async def test_an_asynchronous_move_is_answered_first_and_done_later(tmp_path):
    instances = study(3)
    with ScriptedScp() as scp:
        scp.script = [0x0000, 0xA700, 0xC000]
        async with archive(tmp_path, {"DEST": scp.port}, asynchronous=True) as opened:
            await opened.keep(*instances)
            of_study = f"StudyInstanceUID={STUDY}"
            code, output = await move(opened.port, "DEST", "QueryRetrieveLevel=STUDY", of_study)
            assert code == 0, output
            assert "Received Move Response" not in output, output
            # what was refused for now is sent again, what was refused for good is not
            await eventually(lambda: len(scp.stored) == 2)
            _, output = await move(opened.port, "NOBODY", "QueryRetrieveLevel=STUDY", of_study)
            assert "0xa801" in output, output
            _, output = await move(opened.port, "DEST", "QueryRetrieveLevel=PATIENT", of_study)
            assert "0xa900" in output, output
            assert len(scp.stored) == 2
    assert scp.associations == 2


async def test_a_relational_retrieve_where_it_was_negotiated(tmp_path):
    instances, others = study(3), study(2, StudyInstanceUID=generate_uid(), SeriesInstanceUID=generate_uid())
    asked = ("SERIES", {"SeriesInstanceUID": SERIES}), ("IMAGE", {"SOPInstanceUID": others[0].SOPInstanceUID})
    with ScriptedScp() as scp:
        async with archive(tmp_path, {"DEST": scp.port}) as opened:
            await opened.keep(*instances, *others)
            for level, keys in asked:
                status = await asyncio.to_thread(relational_move, opened.port, TITLE, level, keys)
                assert status.Status == 0x0000
    assert sorted(scp.stored) == sorted(one.SOPInstanceUID for one in [*instances, others[0]])


@pytest.mark.parametrize("operation", ["move", "get"])
async def test_cancel_ends_with_the_counts(tmp_path, operation):
    with ScriptedScp(delay=0.05) as scp:
        async with archive(tmp_path, {"DEST": scp.port}) as opened:
            await opened.keep(*study(40))
            statuses, got = await asyncio.to_thread(cancelled, opened.port, TITLE, STUDY, operation)
    last = statuses[-1]
    assert last.Status == 0xFE00
    assert last.NumberOfRemainingSuboperations > 0
    assert last.NumberOfRemainingSuboperations + last.NumberOfCompletedSuboperations == 40
    assert len(got if operation == "get" else scp.stored) == last.NumberOfCompletedSuboperations

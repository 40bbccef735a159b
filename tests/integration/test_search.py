"""Searches by real clients of what was stored as modalities send it: findscu, dicomweb-client, our own association."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom.dataset import Dataset

from imaging_services.adapters.dimse.requestor import RemoteAE
from imaging_services.apps.dicomweb_ingestion.app import build_app, prefixes
from imaging_services.apps.dicomweb_ingestion.qido import SearchLimits, qido_router
from imaging_services.domain.dicom.command_set import CommandField, request
from imaging_services.domain.dicom.dimse import ProposedContext
from support.dcmtk import dcmtk
from support.dicomweb import served
from support.dimse_archive import TITLE, Archive, archive
from support.instances import EXPLICIT, encoded, instance
from support.manifest_events import stored
from support.manifests import published

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")  # pydicom's; requests' pool

STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.2.1"
JAPANESE, KOREAN, GERMAN = "Yamada^Tarou=山田^太郎=やまだ^たろう", "Hong^Gildong=洪^吉洞=홍^길동", "Müller^Jür"
NAMES = {"1.2.1": (["", "ISO 2022 IR 87"], JAPANESE), "1.2.2": (["", "ISO 2022 IR 149"], KOREAN)}


def step(scheduled: str, requested: str) -> Dataset:
    item = Dataset()
    item.ScheduledProcedureStepID, item.RequestedProcedureID = scheduled, requested
    return item


async def fill(opened: Archive) -> None:
    """Three studies; the third one's name is in UTF-8, whatever its character set says."""
    for number, (uid, (charset, name)) in enumerate(NAMES.items(), 1):
        await opened.keep(
            instance(
                StudyInstanceUID=uid,
                SeriesInstanceUID=f"{uid}.1",
                SpecificCharacterSet=charset,
                PatientName=name,
                PatientID=f"P{number}",
                StudyDate=f"2024010{number}",
                StudyTime="2330",
                RequestAttributesSequence=[step(f"S{number}", "R1"), step("S9", f"R{number}")],
            )
        )
    wrong = instance(StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.1", PatientID="P3", PatientName="NAME-BY-HAND")
    wrong.SpecificCharacterSet, wrong.Modality = "ISO_IR 100", "MR"
    content = encoded(wrong).replace(b"NAME-BY-HAND", GERMAN.encode())
    await opened.keep(wrong, content=content)


async def find(port: int, folder: Path, *keys: str, options: tuple[str, ...] = ("-S",)) -> tuple[list[Dataset], str]:
    """What findscu received, in order, and its output."""
    for old in folder.glob("rsp*.dcm"):
        old.unlink()
    arguments = [part for key in keys for part in ("-k", key)]
    code, output = await dcmtk(
        *("findscu", "-v", *options, "-X", "-od", str(folder), *arguments, "127.0.0.1", str(port)), title=TITLE
    )
    assert code == 0, output
    return [pydicom.dcmread(path) for path in sorted(folder.glob("rsp*.dcm"))], output


async def test_findscu_finds_names_counts_and_items(tmp_path: Path) -> None:
    async with archive(tmp_path / "archive", {}) as opened:
        await fill(opened)

        async def studies(*keys: str, options: tuple[str, ...] = ("-S",)) -> list[Dataset]:
            found, output = await find(
                opened.port, tmp_path, "QueryRetrieveLevel=STUDY", "StudyInstanceUID", *keys, options=options
            )
            assert "(Success)" in output
            return found

        for key, uid in (
            ("PatientName=山田*", "1.2.1"),
            ("PatientName=홍^길동", "1.2.2"),
            ("PatientName=müller*", "1.2.3"),
        ):
            (study,) = await studies("SpecificCharacterSet=ISO_IR 192", key)
            assert study.StudyInstanceUID == uid
        (study,) = await studies("SpecificCharacterSet=\\ISO 2022 IR 87", "PatientName=yamada*", "PatientID")
        assert study.SpecificCharacterSet == ["", "ISO 2022 IR 87"]
        assert study.PatientName == JAPANESE
        (study,) = await studies("SpecificCharacterSet=ISO_IR 100", "PatientName=yamada*")
        assert (study.SpecificCharacterSet, study.PatientName) == ("ISO_IR 192", JAPANESE)
        (study,) = await studies("PatientID=P2", "ModalitiesInStudy", "NumberOfStudyRelatedInstances")
        assert (study.ModalitiesInStudy, study.NumberOfStudyRelatedInstances) == ("CT", 1)
        assert [one.StudyInstanceUID for one in await studies("Modality=MR")] == ["1.2.3"]
        assert [one.StudyInstanceUID for one in await studies("PatientID=P1", options=("-O",))] == ["1.2.1"]
        (patient,), _ = await find(opened.port, tmp_path, "QueryRetrieveLevel=PATIENT", "PatientID=P2", options=("-O",))
        assert patient.PatientID == "P2"

        series = ("QueryRetrieveLevel=SERIES", "StudyInstanceUID=1.2.1", "SeriesInstanceUID")
        way = "RequestAttributesSequence[0]"
        keys = (*series, f"{way}.ScheduledProcedureStepID=S1", f"{way}.RequestedProcedureID")
        ((one,), output) = await find(opened.port, tmp_path, *keys)
        assert [item.RequestedProcedureID for item in one.RequestAttributesSequence] == ["R1", "R1"]
        assert "(Pending)" in output
        nothing, _ = await find(opened.port, tmp_path, *keys[:-2], f"{way}.ScheduledProcedureStepID=S2")
        assert nothing == []
        _, output = await find(opened.port, tmp_path, "QueryRetrieveLevel=STUDY", "StudyInstanceUID", "StudyComments")
        assert output.count("Pending: WarningUnsupportedOptionalKeys") == 3, output


async def test_a_find_is_cancelled_between_answers(tmp_path: Path) -> None:
    async with archive(tmp_path / "archive", {}) as opened:
        events = [stored(f"1.2.{number}", f"1.3.{number}", f"1.4.{number}", provider="space") for number in range(600)]
        assert not any(await opened.manifest.record(events))
        search, waited = opened.manifest.search, asyncio.Event()

        async def search_first_page_only(query: Any) -> Any:
            if query.after is None:
                return await search(query)
            waited.set()
            return await asyncio.Event().wait()

        opened.manifest.search = search_first_page_only  # type: ignore[method-assign]
        found, output = await find(
            opened.port, tmp_path, "QueryRetrieveLevel=STUDY", "StudyInstanceUID", options=("-S", "--cancel", "5")
        )
        assert waited.is_set()
        assert len(found) == 500
        assert re.search(r"Find Response.*Cancel", output), output


async def test_relational_queries_are_negotiated(tmp_path: Path) -> None:
    async with archive(tmp_path / "archive", {}) as opened:
        await fill(opened)
        query = Dataset()
        query.QueryRetrieveLevel, query.SeriesInstanceUID, query.PatientName = "SERIES", "", "gildong hong"

        async def statuses(proposed: bytes) -> tuple[bytes, list[int]]:
            remote = RemoteAE("127.0.0.1", opened.port)
            association = await remote.associate(
                calling_ae_title="TEST",
                called_ae_title=TITLE,
                contexts=(ProposedContext(1, STUDY_ROOT, (EXPLICIT,)),),
                extended={STUDY_ROOT: proposed},
            )
            command = request(CommandField.C_FIND_RQ, STUDY_ROOT, message_id=1, has_data_set=True)
            answers = [one.command.status async for one in association.request(1, command, encoded(query))]
            await association.release()
            return association.extended[STUDY_ROOT], answers

        assert await statuses(b"\1\0\1\1") == (b"\1\0\1\0", [0xFF00, 0x0000])  # fuzzy too
        assert await statuses(b"\1") == (b"\1", [0x0000])
        assert await statuses(b"\0\0\1") == (b"\0\0\1", [0xA900])


async def test_dicomweb_client_searches(tmp_path: Path) -> None:
    async with archive(tmp_path / "archive", {}) as opened:
        await fill(opened)
        # This client's Host header lacks the port, so URLs are not made from it.
        router = qido_router(
            opened.manifest, "space", external_endpoint="http://archive/dicomweb", limits=SearchLimits(default=2)
        )
        async with served(build_app(prefixes(None, [router]))) as url:
            client = DICOMwebClient(f"{url}/dicomweb")
            await asyncio.to_thread(_search, client)
            first = await asyncio.to_thread(client.search_for_studies, limit=2)
            late = stored("1.2.9", "1.2.9.1", "1.2.9.1.1", provider="space")
            assert await opened.manifest.record([late]) == [None]
            second = await asyncio.to_thread(client.search_for_studies, limit=2, offset=2)
            assert [_uid(one) for one in (*first, *second)] == ["1.2.3", "1.2.2", "1.2.1"]
            everything = await asyncio.to_thread(client.search_for_studies, limit=3, get_remaining=True)
            assert [_uid(one) for one in everything] == ["1.2.9", "1.2.3", "1.2.2", "1.2.1"]
        assert len(await published(opened.manifest)) > 0


def _uid(result: dict[str, Any]) -> str:
    return str(result["0020000D"]["Value"][0])


def _search(client: DICOMwebClient) -> None:
    (study,) = client.search_for_studies(search_filters={"PatientName": "山田*"})
    assert study["00100010"]["Value"] == [
        {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}
    ]
    assert Dataset.from_json(study).SpecificCharacterSet == "ISO_IR 192"
    found = client.search_for_studies(fuzzymatching=True, search_filters={"PatientName": "길동 hong"})
    assert [_uid(one) for one in found] == ["1.2.2"]
    (study,) = client.search_for_studies(search_filters={"PatientName": "muller*"}, fuzzymatching=True)
    assert study["00100010"]["Value"] == [{"Alphabetic": GERMAN}]
    night = {"StudyDate": "20240101-20240102", "StudyTime": "2300-0600"}
    assert [_uid(one) for one in client.search_for_studies(search_filters=night)] == ["1.2.1"]
    elsewhere = {"StudyDate": "20240102", "TimezoneOffsetFromUTC": "+0900"}
    assert [_uid(one) for one in client.search_for_studies(search_filters=elsewhere)] == ["1.2.2"]
    (series,) = client.search_for_series(search_filters={"RequestAttributesSequence.ScheduledProcedureStepID": "S1"})
    assert [item["00400009"]["Value"] for item in series["00400275"]["Value"]] == [["S1"], ["S9"]]
    assert series["00100020"]["Value"] == ["P1"]  # of the study, since the path leaves it open
    (series,) = client.search_for_series("1.2.1")
    assert "00100020" not in series
    (one,) = client.search_for_instances("1.2.1", "1.2.1.1", fields=["BitsStored", "PatientSex"])
    assert one["00280101"]["Value"] == [12]
    (one,) = client.search_for_instances(search_filters={"00400275.00400009": "S2"})
    assert one["0020000E"]["Value"] == ["1.2.2.1"]

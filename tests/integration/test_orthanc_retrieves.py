"""Orthanc as the hospital's PACS: it queries, moves to itself and asks for storage commitment; DCMTK retrieves."""

import asyncio
import json
import urllib.request
from typing import Any

from pydicom.uid import generate_uid

from imaging_services.local.ports import free_ports
from support.dimse_archive import TITLE, archive
from support.instances import instance, part10
from support.orthanc import Orthanc


def post(orthanc: Orthanc, path: str, body: Any) -> Any:
    """A REST call's answer as JSON; bytes are sent as they are."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{orthanc.http}{path}", data=data, method="POST")
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


async def test_orthanc_moves_a_study_to_itself_and_is_committed_to(tmp_path):
    study, series = generate_uid(), generate_uid()
    instances = [instance(StudyInstanceUID=study, SeriesInstanceUID=series, InstanceNumber=n) for n in range(1, 6)]
    (port,) = free_ports(1)
    with Orthanc(tmp_path / "orthanc", modalities={"archive": (TITLE, "127.0.0.1", port)}) as orthanc:
        async with archive(tmp_path / "archive", {"ORTHANC": orthanc.dicom_port}, port=port) as opened:
            await opened.keep(*instances)
            call = asyncio.to_thread
            query = await call(
                post, orthanc, "/modalities/archive/query", {"Level": "Study", "Query": {"StudyInstanceUID": study}}
            )
            assert await call(orthanc.get, f"{query['Path']}/answers") == ["0"]
            await call(post, orthanc, f"{query['Path']}/retrieve", {"TargetAet": "ORTHANC", "Synchronous": True})
            assert (await call(orthanc.get, "/statistics"))["CountInstances"] == 5
            new = instance()
            stored = await call(post, orthanc, "/instances", part10(new))
            await opened.keep(new)
            asked = await call(
                post,
                orthanc,
                "/modalities/archive/storage-commitment",
                {"Resources": [stored["ID"]], "DicomInstances": [[instances[0].SOPClassUID, "1.2.3.4"]]},
            )
            async with asyncio.timeout(30):
                while (report := await call(orthanc.get, asked["Path"]))["Status"] == "Pending":
                    await asyncio.sleep(0.05)
    assert report["Status"] == "Failure"
    assert [one["SOPInstanceUID"] for one in report["Success"]] == [new.SOPInstanceUID]
    assert [(one["SOPInstanceUID"], one["FailureReason"]) for one in report["Failures"]] == [("1.2.3.4", 0x0112)]

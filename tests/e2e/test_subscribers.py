"""Subscribers of ``imaging up``: real receivers of every kind, and one that refuses for a while."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid

from support.dicom_files import DicomFile, data_set_of, storable_files
from support.fhir_server import FhirServer
from support.instances import EXPLICIT, encoded, instance
from support.orthanc import Orthanc
from support.senders import send_undecoded
from support.stack import Stack, imaging_up
from support.storescp import storescp
from support.webhook import Reply, Request, Webhook, wait_until

pytestmark = pytest.mark.timeout(240)

IMAGING = str(Path(sys.executable).with_name("imaging"))
# Native in either byte order, and every family of compression; the data sets go undecoded from end to end.
NAMES = [
    "CT_small.dcm",
    "MR_small.dcm",
    "ExplVR_BigEnd.dcm",
    "SC_rgb_rle.dcm",
    "JPEG2000.dcm",
    "JPEG-lossy.dcm",
    "examples_ybr_color.dcm",
    "rtplan.dcm",
    "reportsi.dcm",
    "waveform_ecg.dcm",
    "liver_1frame.dcm",
]
FILES = [file for file in storable_files() if file.path.name in NAMES]
DATA_SETS = {file.data_set for file in FILES}


class Refusing(Webhook):
    """Answers 403 while ``refusing``."""

    refusing = False

    def answer(self, request: Request) -> Reply:
        return Reply(403, b"not today") if self.refusing else Reply()


@dataclass(frozen=True)
class Site:
    """A stack and everybody who listens to it."""

    stack: Stack
    orthanc: Orthanc
    pacs: Path
    webhook: Webhook
    choosy: Refusing
    fhir: FhirServer
    revisions: Webhook

    def imaging(self, *arguments: str) -> str:
        """The output of an ``imaging`` command on this stack."""
        folder = str(self.stack.ready_file.with_name("data"))
        command = [IMAGING, *arguments, "--data-dir", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def dead_letters(self) -> list[dict[str, Any]]:
        """Those that ``imaging dead-letters`` lists."""
        return [json.loads(line) for line in self.imaging("dead-letters", "--json").splitlines()]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("subscribers")
    with ExitStack() as stack:
        enter = stack.enter_context
        orthanc = enter(Orthanc(folder / "orthanc"))
        port = enter(storescp(folder / "pacs", "--accept-all"))
        webhook, choosy, revisions = enter(Webhook()), enter(Refusing()), enter(Webhook())
        fhir = enter(FhirServer())
        targets = {
            "--instance-binding": [f"{orthanc.dicomweb}/studies", f"dimse://STORESCP@127.0.0.1:{port}"],
            "--study-binding": [fhir.url.replace("http", "fhir+http", 1), revisions.url],
        }
        targets["--instance-binding"] += [webhook.url, choosy.url]
        options = [word for option, urls in targets.items() for url in urls for word in (option, url)]
        up = enter(imaging_up(folder, *options, "--revisioning-delay", "1"))
        yield Site(up, orthanc, folder / "pacs", webhook, choosy, fhir, revisions)


def instances_of(webhook: Webhook) -> Counter[str]:
    """How often each SOP Instance UID was announced."""
    return Counter(event["data"]["endpoint"].rsplit("/", 1)[-1] for event in webhook.events)


def data_sets(part10_files: list[bytes]) -> set[bytes]:
    """What follows the file meta information, which each receiver writes its own way."""
    return {data_set_of(file) for file in part10_files}


async def send(site: Site, files: list[DicomFile], folder: Path) -> None:
    statuses = await asyncio.to_thread(send_undecoded, files, site.stack.ready["dimse_proxy"], folder)
    assert set(statuses.values()) == {0}


def made(folder: Path, study: str, **attributes: object) -> DicomFile:
    """A new instance of a study, as a file to be sent."""
    data_set = instance(StudyInstanceUID=study, **attributes)
    uids = (data_set.SOPClassUID, data_set.SOPInstanceUID, study, data_set.SeriesInstanceUID)
    return DicomFile(folder / f"{data_set.SOPInstanceUID}.dcm", *map(str, uids), EXPLICIT, encoded(data_set))


async def test_every_kind_of_receiver_gets_each_instance_once_and_byte_for_byte(site: Site, tmp_path: Path) -> None:
    assert len(FILES) == len(NAMES)
    await send(site, FILES, tmp_path)
    await asyncio.to_thread(until_all_have, site, len(FILES))

    sent = Counter(file.sop_instance_uid for file in FILES)
    assert data_sets([site.orthanc.file(each) for each in site.orthanc.get("/instances")]) == DATA_SETS
    assert data_sets([path.read_bytes() for path in site.pacs.iterdir()]) == DATA_SETS
    assert instances_of(site.webhook) == sent

    # The same again is no news to anybody.
    requests = len(site.webhook.requests), len(site.fhir.writes), len(site.revisions.requests)
    await send(site, FILES, tmp_path)
    await asyncio.sleep(3)
    assert (len(site.webhook.requests), len(site.fhir.writes), len(site.revisions.requests)) == requests
    assert site.dead_letters() == []


def until_all_have(site: Site, count: int) -> None:
    wait_until(lambda: len(site.orthanc.get("/instances")) == count)
    wait_until(lambda: len(list(site.pacs.iterdir())) == count)
    wait_until(lambda: sum(instances_of(site.webhook).values()) == count)
    studies = {file.study_instance_uid for file in FILES}
    wait_until(lambda: studies <= {event["data"]["study"]["studyInstanceUID"] for event in site.revisions.events})
    wait_until(lambda: len(site.fhir.studies) == len(studies))


async def test_two_revisions_give_one_complete_imaging_study(site: Site, tmp_path: Path) -> None:
    study = generate_uid()
    about = {
        "StudyDate": "20260102",
        "StudyTime": "030405",
        "TimezoneOffsetFromUTC": "+0100",
        "StudyDescription": "Thorax",
        "AccessionNumber": "ACC-77",
        "PatientID": "PID-4711",
        "Modality": "CT",
    }
    first, second = generate_uid(), generate_uid()
    axial = made(tmp_path, study, **about, SeriesInstanceUID=first, SeriesDescription="axial", SeriesNumber=1)
    await send(site, [axial], tmp_path)
    await asyncio.to_thread(wait_until, lambda: revisions_of(site, study) == [0])
    late = made(tmp_path, study, **about | {"Modality": "SR"}, SeriesInstanceUID=second, SeriesNumber=2)
    await send(site, [late], tmp_path)
    await asyncio.to_thread(wait_until, lambda: revisions_of(site, study) == [0, 1])
    await asyncio.to_thread(wait_until, lambda: imaging_study(site, study).get("numberOfInstances") == 2)

    found = imaging_study(site, study)
    assert (found["status"], found["description"]) == ("available", "Thorax")
    assert found["started"] == "2026-01-02T03:04:05+01:00"
    assert found["subject"]["identifier"]["value"] == "PID-4711"
    assert "ACC-77" in {identifier["value"] for identifier in found["identifier"]}
    assert {coding["code"] for coding in found["modality"]} == {"CT", "SR"}
    assert (found["numberOfSeries"], found["numberOfInstances"]) == (2, 2)
    series = {one["uid"]: one for one in found["series"]}
    assert set(series) == {first, second}
    assert (series[first]["number"], series[first]["description"]) == (1, "axial")
    assert series[first]["instance"][0]["uid"] == axial.sop_instance_uid
    endpoints = {one["address"] for one in found["contained"] if one["resourceType"] == "Endpoint"}
    assert endpoints
    assert all(address.startswith(f"{site.stack.url('wado')}/studies/{study}") for address in endpoints)


def revisions_of(site: Site, study: str) -> list[int]:
    data = [event["data"] for event in site.revisions.events]
    return [one["revision"] for one in data if one["study"]["studyInstanceUID"] == study]


def imaging_study(site: Site, study: str) -> dict[str, Any]:
    """The one resource of the study; empty as long as there is none."""
    name = f"urn:oid:{study}"
    found = [one for one in site.fhir.studies.values() if name in {i["value"] for i in one["identifier"]}]
    assert len(found) <= 1
    return found[0] if found else {}


async def test_what_was_refused_is_listed_and_redriven_while_everything_else_flows(site: Site, tmp_path: Path) -> None:
    before = len(site.orthanc.get("/instances"))
    refused = [made(tmp_path, generate_uid()) for _ in range(3)]
    site.choosy.refusing = True
    await send(site, refused, tmp_path)
    await asyncio.to_thread(wait_until, lambda: len(site.orthanc.get("/instances")) == before + 3)
    uids = {file.sop_instance_uid for file in refused}
    await asyncio.to_thread(wait_until, lambda: uids <= set(instances_of(site.webhook)))
    await asyncio.to_thread(wait_until, lambda: len(site.dead_letters()) == 3)

    letters = site.dead_letters()
    (consumer,) = {letter["consumer"] for letter in letters}
    assert all("403" in letter["reason"] and letter["tries"] == 1 for letter in letters)
    shown = site.imaging("dead-letters")
    assert "403" in shown
    assert f"imaging redrive --data-dir {site.stack.ready_file.with_name('data')}" in shown

    # It takes what comes from now on, without waiting for what it has refused.
    site.choosy.refusing = False
    already = len(site.choosy.requests)
    later = made(tmp_path, generate_uid())
    await send(site, [later], tmp_path)
    await asyncio.to_thread(wait_until, lambda: len(site.choosy.requests) == already + 1)
    assert site.imaging("redrive", "--consumer", "another") == "0 put back\n"
    assert site.imaging("redrive", "--consumer", consumer) == "3 put back\n"
    await asyncio.to_thread(wait_until, lambda: len(site.choosy.requests) == already + 4)
    delivered = [event["data"]["endpoint"].rsplit("/", 1)[-1] for event in site.choosy.events[already:]]
    assert Counter(delivered) == Counter([later.sop_instance_uid, *uids])
    assert site.dead_letters() == []
    # Redriven for one: the others are not told again.
    assert all(instances_of(site.webhook)[uid] == 1 for uid in uids)

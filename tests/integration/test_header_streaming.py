"""Study header documents over a real HTTP server: by their own resource and by SOAP, plain and MTOM."""

import asyncio
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import psycopg
import pydicom
import pytest

from imaging_services.adapters.memory.study_headers import MemoryHeaders
from imaging_services.domain.errors import BackendUnavailable
from imaging_services.domain.manifest.query import InstanceLocation, Scope
from support.dicom_files import DicomFile, storable_files
from support.dicomweb import Recorded, keep, served
from support.dicomweb_stack import dicomweb_stack, stow
from support.servers import S3, Database, Nats
from support.streaming import (
    ACTION,
    ENDPOINT,
    CountingStore,
    as_mtom,
    soap_headers,
    soap_request,
    streaming_app,
    study_of,
)
from support.study_xml import read_study_xml

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of awkward files
CONTRACT = "{http://schemas.datacontract.org/2004/07/ClearCanvas.Dicom.ServiceModel.Streaming}"


def a_file() -> DicomFile:
    return next(file for file in storable_files() if file.path.name == "CT_small.dcm")


def instance(number: int) -> DicomFile:
    """One of a series: the real file with another SOP Instance UID of the same length."""
    file = a_file()
    uid = f"{file.sop_instance_uid[:-5]}{number:05}"
    data_set = file.data_set.replace(file.sop_instance_uid.encode(), uid.encode())
    return replace(file, sop_instance_uid=uid, data_set=data_set)


@asynccontextmanager
async def study(
    count: int, kept: MemoryHeaders | None = None, *, cache_bytes: int = 2**20
) -> AsyncIterator[tuple[httpx.AsyncClient, CountingStore, Recorded]]:
    store, recorded = CountingStore(), Recorded()
    for number in range(count):
        await keep(store, recorded, instance(number))
    async with (
        served(streaming_app(recorded, store, kept, cache_bytes=cache_bytes)) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        yield client, store, recorded


RESOURCE = f"/dicomweb/studies/{a_file().study_instance_uid}/headers.xml.gz"


def instances_in(packed: bytes) -> list[str]:
    return [uid for series in read_study_xml(packed)[1].values() for uid in series]


async def test_the_document_follows_the_manifest_and_reads_only_what_is_new() -> None:
    async with study(12) as (client, store, recorded):
        first = await client.get(RESOURCE)
        assert first.status_code == 200
        assert first.headers["content-type"] == "application/gzip"
        assert first.headers["content-length"] == str(len(first.content))
        assert instances_in(first.content) == [one.sop_instance_uid for one in recorded.locations]
        assert len(store.touched) == 12

        store.touched.clear()
        added = await keep(store, recorded, instance(12))
        second = await client.get(RESOURCE)
        assert instances_in(second.content) == [one.sop_instance_uid for one in recorded.locations]
        assert store.touched == {added.object_name}
        assert second.headers["etag"] != first.headers["etag"]

        deleted = recorded.locations.pop(3)
        third = await client.get(RESOURCE)
        assert deleted.sop_instance_uid not in third.content.decode("latin-1")
        assert instances_in(third.content) == [one.sop_instance_uid for one in recorded.locations]
        assert store.touched == {added.object_name}
        unchanged = await client.get(RESOURCE, headers={"if-none-match": third.headers["etag"]})
        assert (unchanged.status_code, unchanged.content) == (304, b"")


async def test_a_replaced_instance_is_read_again() -> None:
    async with study(3) as (client, store, recorded):
        await client.get(RESOURCE)
        changed = replace(
            instance(1), data_set=instance(1).data_set.replace(b"CompressedSamples^CT1", b"ChangedName^^^^^^^CT1")
        )
        recorded.locations.remove(
            next(one for one in recorded.locations if one.sop_instance_uid == changed.sop_instance_uid)
        )
        await keep(store, recorded, changed)
        _, series = read_study_xml((await client.get(RESOURCE)).content)
        (found,) = series.values()
        assert found[changed.sop_instance_uid]["header"]["00100010"] == ("PN", "ChangedName^^^^^^^CT1")
        assert found[instance(0).sop_instance_uid]["header"]["00100010"] == ("PN", "CompressedSamples^CT1")


async def test_many_who_ask_at_once_have_each_file_read_once() -> None:
    async with study(20) as (client, store, _):
        reads: list[str] = []
        original = store.get

        async def counted(key: str, start: int = 0, length: int | None = None) -> bytes:
            reads.append(key)
            await asyncio.sleep(0)
            return await original(key, start, length)

        store.get = counted  # type: ignore[method-assign]
        answers = await asyncio.gather(*(client.get(RESOURCE) for _ in range(8)))
        assert {answer.content for answer in answers} == {answers[0].content}
        assert len(reads) == len(set(reads)) == 20


async def test_an_instance_whose_object_has_vanished_is_named_with_its_identifiers_and_read_when_it_is_back() -> None:
    async with study(2) as (client, store, recorded):
        lost = recorded.locations[1]
        content = store.objects.pop(lost.object_name)
        first = await client.get(RESOURCE)
        _, series = read_study_xml(first.content)
        assert set(series[lost.series_instance_uid][lost.sop_instance_uid]["header"]) == {
            "00080016",
            "00080018",
            "0020000D",
            "0020000E",
        }
        await store.put(lost.object_name, content)
        second = await client.get(RESOURCE, headers={"if-none-match": first.headers["etag"]})
        _, series = read_study_xml(second.content)
        assert "00280010" in series[lost.series_instance_uid][lost.sop_instance_uid]["header"]


async def test_an_object_that_holds_no_data_set_is_named_with_its_identifiers() -> None:
    async with study(2) as (client, store, recorded):
        lost = recorded.locations[1]
        assert lost.size is not None
        store.objects[lost.object_name] = bytes(lost.size)
        content = (await client.get(RESOURCE)).content
        assert instances_in(content) == [one.sop_instance_uid for one in recorded.locations]
        _, series = read_study_xml(content)
        assert "00080018" in series[lost.series_instance_uid][lost.sop_instance_uid]["header"]


async def test_who_waited_for_another_hears_of_what_came_meanwhile() -> None:
    async with study(2) as (client, store, recorded):
        original, reached, go_on = store.get, asyncio.Event(), asyncio.Event()

        async def held(key: str, start: int = 0, length: int | None = None) -> bytes:
            reached.set()
            await go_on.wait()
            return await original(key, start, length)

        asked = asyncio.Semaphore(0)
        locate = recorded.locate

        async def counted(scope: Scope) -> list[InstanceLocation]:
            asked.release()
            return await locate(scope)

        store.get, recorded.locate = held, counted  # type: ignore[method-assign]
        first = asyncio.create_task(client.get(RESOURCE))
        await reached.wait()
        second = asyncio.create_task(client.get(RESOURCE))
        for _ in range(3):  # twice for the first, once for the second, which waits now
            await asked.acquire()
        await keep(store, recorded, instance(2))
        go_on.set()
        assert len(instances_in((await first).content)) == 2
        assert len(instances_in((await second).content)) == 3


async def test_a_document_beyond_the_limit_drives_no_other_out_of_memory() -> None:
    class Counting(MemoryHeaders):
        loads = 0

        async def load(self, study_instance_uid: str, provider: str) -> dict[str, bytes]:
            self.loads += 1
            return await super().load(study_instance_uid, provider)

    kept = Counting()
    async with study(60, kept, cache_bytes=1250) as (client, _, recorded):
        recorded.locations[0] = replace(recorded.locations[0], study_instance_uid="1.2.3")
        small, large = "/dicomweb/studies/1.2.3/headers.xml.gz", RESOURCE
        sizes = [len((await client.get(path)).content) for path in (small, large)]
        assert sizes[0] < 1250 < sizes[1], sizes
        await client.get(small)
        assert kept.loads == 2


async def test_a_document_is_answered_also_when_its_headers_cannot_be_kept() -> None:
    class Full(MemoryHeaders):
        async def save(self, *_: object) -> None:
            raise BackendUnavailable("the database is read-only")

    async with study(2, Full()) as (client, _, recorded):
        answer = await client.get(RESOURCE)
        assert instances_in(answer.content) == [one.sop_instance_uid for one in recorded.locations]


async def test_a_storage_space_that_fails_is_503_not_a_document_with_gaps() -> None:
    async with study(2) as (client, store, _):
        store.failure = BackendUnavailable("away")
        assert (await client.get(RESOURCE)).status_code == 503
        fault = await client.post(ENDPOINT, content=soap_request(a_file().study_instance_uid), headers=soap_headers())
        assert fault.status_code == 500
        assert b"<faultcode>s:Server</faultcode>" in fault.content


async def test_unknown_and_malformed_studies() -> None:
    async with study(1) as (client, _, _recorded):
        assert (await client.get("/dicomweb/studies/1.2.3/headers.xml.gz")).status_code == 404
        assert (await client.get("/dicomweb/studies/no-uid/headers.xml.gz")).status_code == 400


async def test_the_whole_service_keeps_headers_beside_its_manifest_and_streams_what_it_stores(
    nats_server: Nats, database: Database, s3_server: S3, bucket: str, tmp_path: Path
) -> None:
    def kept() -> int:
        with psycopg.connect(database.conninfo) as connection:
            return connection.execute("SELECT count(*) FROM instance_header").fetchone()[0]  # type: ignore[index]

    async with (
        dicomweb_stack(nats_server, database, s3_server, bucket, tmp_path) as url,
        httpx.AsyncClient(base_url=f"{url}/dicomweb/", timeout=30) as client,
    ):
        for count in (2, 3):
            assert (await stow(client, [instance(number) for number in range(count)], tmp_path)).status_code == 200
            document = await client.get(f"{url}{RESOURCE}")
            assert sorted(instances_in(document.content)) == [
                instance(number).sop_instance_uid for number in range(count)
            ]
            assert await asyncio.to_thread(kept) == count
        study_uid, series, sop = instance(1).identity
        uids = f"studyUID={study_uid}&seriesUID={series}&objectUID={sop}"
        frame = await client.get(f"{url}/WADO/north?requestType=WADO&contentType=application/clearcanvas&{uids}")
        assert frame.content == pydicom.dcmread(a_file().path).PixelData


@pytest.mark.parametrize("order", ["IRAU", "UARI", "RAU"])
async def test_soap_gives_the_same_document_whatever_the_order_of_parameters(order: str) -> None:
    async with study(2) as (client, _, _recorded):
        document = (await client.get(RESOURCE)).content
        envelope = soap_request(a_file().study_instance_uid, order=order)
        plain = await client.post(ENDPOINT, content=envelope, headers=soap_headers())
        assert (plain.status_code, plain.headers["content-type"]) == (200, "text/xml; charset=utf-8")
        assert study_of(plain) == document
        headers, body = as_mtom(envelope)
        mtom = await client.post(ENDPOINT, content=body, headers=headers)
        assert mtom.status_code == 200
        assert mtom.headers["mime-version"] == "1.0"
        assert mtom.headers["content-length"] == str(len(mtom.content))
        assert len(mtom.content) > 1024
        assert "content-encoding" not in mtom.headers, "it is compressed already"
        assert study_of(mtom) == document


REFUSED = {
    "unknown study": (soap_request("1.2.3"), {}, "StudyNotFoundFault"),
    "no uid": (soap_request("x"), {}, "StudyNotFoundFault"),
    "unknown partition": (soap_request("1.2.3", "south"), {}, "no partition 'south'"),
    "empty parameter": (soap_request(""), {}, "StudyInstanceUID"),
    "missing parameter": (soap_request("1.2.3", order="IU"), {}, "ReferenceID, ServerAETitle"),
    "other action": (soap_request("1.2.3"), {"soapaction": '"http://tempuri.org/Other"'}, "no SOAP action"),
    "not XML": (b"hello", {}, "not well-formed"),
    "no envelope": (b"<a/>", {}, "no SOAP 1.1 envelope"),
    "another body": (soap_request("1.2.3").replace(b"GetStudyHeader", b"DeleteStudy"), {}, "no GetStudyHeader"),
    "entities": (b'<!DOCTYPE a [<!ENTITY x "y">]>' + soap_request("&x;"), {}, "document type"),
    "too long": (soap_request("1" * 70000), {}, "longer than"),
    "other content type": (soap_request("1.2.3"), {"content-type": "application/soap+xml"}, "SOAP 1.1 comes as"),
    "broken MTOM": (as_mtom(soap_request("1.2.3"))[1][:-20], as_mtom(b"")[0], "malformed"),
    "unknown encoding": (b'<?xml version="1.0" encoding="none-such"?><a/>', {}, "not well-formed"),
    "must understand": (
        soap_request("1.2.3").replace(b"<s:Body>", b'<s:Header><x s:mustUnderstand="1"/></s:Header><s:Body>'),
        {},
        "must be understood",
    ),
}


async def test_entries_of_the_soap_header_are_no_parameters() -> None:
    async with study(1) as (client, _, _recorded):
        header = b"<s:Header><o:StudyInstanceUID xmlns:o='urn:other'>1.2.3</o:StudyInstanceUID></s:Header><s:Body>"
        envelope = soap_request(a_file().study_instance_uid).replace(b"<s:Body>", header)
        answer = await client.post(ENDPOINT, content=envelope, headers=soap_headers())
        assert answer.status_code == 200, answer.text


async def test_soap_faults() -> None:
    async with study(1) as (client, _, _recorded):
        for case, (body, headers, wanted) in REFUSED.items():
            answer = await client.post(ENDPOINT, content=body, headers={**soap_headers(), **headers})
            assert answer.status_code == 500, case
            assert answer.headers["content-type"] == "text/xml; charset=utf-8", case
            fault = ET.fromstring(answer.content)[0][0]
            assert fault.tag == "{http://schemas.xmlsoap.org/soap/envelope/}Fault", case
            assert fault.findtext("faultcode") == "s:Client", case
            detail = fault.find("detail")
            told = fault.findtext("faultstring", "") if detail is None else detail[0].tag.removeprefix(CONTRACT)
            assert wanted in told, case


async def test_the_description_names_this_address_and_the_contract() -> None:
    async with study(1) as (client, _, _recorded):
        for query in ("", "?wsdl", "?singleWsdl"):
            answer = await client.get(ENDPOINT + query)
            assert answer.headers["content-type"] == "text/xml; charset=utf-8"
            root = ET.fromstring(answer.content)
            soap = "{http://schemas.xmlsoap.org/wsdl/soap/}"
            assert [one.attrib["location"] for one in root.iter(f"{soap}address")] == [
                f"{str(client.base_url).rstrip('/')}{ENDPOINT}"
            ]
            assert [one.attrib["soapAction"] for one in root.iter(f"{soap}operation")] == [ACTION.strip('"')]
            names = [one.attrib["name"] for one in root.iter("{http://www.w3.org/2001/XMLSchema}element")]
            assert names.index("IgnoreInUse") < names.index("ReferenceID") < names.index("ServerAETitle")

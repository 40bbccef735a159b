"""WADO-RS metadata and bulk data: every value is there, inline or behind a URL that works."""

import base64
import os
import struct
import warnings
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import httpx
import pydicom
import pytest

from imaging_services.adapters.memory.object_store import MemoryObjectStore
from support.dicom_files import DicomFile, storable_files
from support.dicomweb import Recorded, keep, kept, reading_app, served
from support.multipart import parts

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of awkward files
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    FILES = storable_files()
UNCOMPARED = (0x00080000, 0x00080005)  # group length, character set
LONG_VALUE = os.urandom(100_000)
XML = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"


def named(name: str) -> DicomFile:
    return next(file for file in FILES if file.path.name == name)


@asynccontextmanager
async def client_of(store: MemoryObjectStore, recorded: Recorded) -> AsyncIterator[httpx.AsyncClient]:
    async with served(reading_app(recorded, store)) as url, httpx.AsyncClient(base_url=f"{url}/dicomweb/") as client:
        yield client


async def metadata_of(client: httpx.AsyncClient, file: DicomFile) -> dict[str, Any]:
    answer = await client.get(f"{file.resource}/metadata")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/dicom+json"), file.path.name
    (document,) = answer.json()
    return dict(document)


async def test_metadata_says_what_pydicom_reads() -> None:
    compared = 0
    store, recorded = MemoryObjectStore(), Recorded()
    async with client_of(store, recorded) as client:
        for file in (file for file in FILES if file.path.name != "badVR.dcm"):
            recorded.locations.clear()  # some files are variants of one instance
            await keep(store, recorded, file)
            document = await metadata_of(client, file)
            got = pydicom.Dataset.from_json(document, bulk_data_uri_handler=lambda _uri: b"")
            for element in pydicom.dcmread(file.path, stop_before_pixels=True):
                key = f"{element.tag:08X}"
                if element.tag.element == 0 or key == "00080005" or "BulkDataURI" in str(document[key]):
                    continue
                assert document[key]["vr"] == element.VR, (file.path.name, key)
                assert values(got[key]) == values(element), (file.path.name, key)
                compared += 1
    assert compared > 3000


def values(element: pydicom.DataElement) -> str:
    """Values without what padding and empty values look like; sequences item by item."""
    if element.VR == "SQ":
        return str(
            [
                [values(inner) for inner in item if inner.tag.element and inner.tag != 0x00080005]
                for item in element.value
            ]
        )
    plain = [] if element.is_empty else (list(element.value) if element.VM > 1 else [element.value])
    if element.VR in ("FL", "FD", "DS"):
        return str([float(value) if value not in (None, "") else None for value in plain])
    return str([str(value if value is not None else "").strip(" \0") for value in plain if str(value or "").strip()])


async def test_a_value_that_is_not_what_its_vr_says_is_given_as_text() -> None:
    file = named("badVR.dcm")
    store, recorded = await kept([file])
    async with client_of(store, recorded) as client:
        assert (await metadata_of(client, file))["00280008"] == {"vr": "IS", "Value": ["1A"]}
        answer = await client.get(f"{file.resource}/frames/1")
        assert (answer.status_code, "Number of Frames" in answer.json()["detail"]) == (404, True)


async def test_bulk_data_urls_lead_to_the_values() -> None:
    followed = 0
    store, recorded = MemoryObjectStore(), Recorded()
    async with served(reading_app(recorded, store)) as url, httpx.AsyncClient(base_url=f"{url}/wado-rs/") as client:
        for file in FILES:
            recorded.locations.clear()
            await keep(store, recorded, file)
            document = await metadata_of(client, file)
            for path, uri in bulk_uris(document):
                assert uri.startswith(f"{url}/wado-rs/{file.resource}/bulkdata/")
                answer = await client.get(uri)
                assert answer.status_code == 200, (uri, answer.text)
                if path[-1] != "7FE00010":
                    (part,) = parts(answer)
                    assert part.body == value_at(pydicom.dcmread(file.path), path), (file.path.name, path)
                    plain = await client.get(uri, headers={"accept": "application/octet-stream", "range": "bytes=1-4"})
                    assert (plain.status_code, plain.content) == (206, part.body[1:5])
                    assert plain.headers["content-range"] == f"bytes 1-4/{len(part.body)}"
                    beyond = await client.get(uri, headers={"range": f"bytes={len(part.body)}-"})
                    assert beyond.status_code == 416
                followed += 1
    assert followed > 80


def bulk_uris(document: dict[str, Any], path: tuple[Any, ...] = ()) -> list[tuple[tuple[Any, ...], str]]:
    found = []
    for tag, attribute in document.items():
        if "BulkDataURI" in attribute:
            found.append(((*path, tag), attribute["BulkDataURI"]))
        if attribute["vr"] == "SQ":
            for number, item in enumerate(attribute.get("Value", [])):
                found += bulk_uris(item, (*path, tag, number))
    return found


def value_at(dataset: pydicom.Dataset, path: tuple[Any, ...]) -> bytes:
    *outer, tag = path
    for sequence, number in zip(outer[::2], outer[1::2], strict=True):
        dataset = dataset[int(sequence, 16)].value[number]
    return bytes(dataset[int(tag, 16)].value)


async def test_native_pixel_data_is_bulk_data() -> None:
    for name in ("CT_small.dcm", "image_dfl.dcm"):
        file = named(name)
        store, recorded = await kept([file])
        async with (
            served(reading_app(recorded, store)) as url,
            httpx.AsyncClient(base_url=f"{url}/dicomweb/") as client,
        ):
            uri = (await metadata_of(client, file))["7FE00010"]["BulkDataURI"]
            (part,) = parts(await client.get(uri))
            assert part.body == pydicom.dcmread(file.path).PixelData


async def test_encapsulated_pixel_data_is_a_part_a_frame() -> None:
    file = named("examples_jpeg2k.dcm") if any(f.path.name == "examples_jpeg2k.dcm" for f in FILES) else FILES[0]
    store, recorded = await kept([file])
    async with client_of(store, recorded) as client:
        uri = (await metadata_of(client, file))["7FE00010"]["BulkDataURI"]
        frames = await client.get(f"{file.resource}/frames/1")
        assert [part.body for part in parts(await client.get(uri))] == [part.body for part in parts(frames)]


async def test_a_study_is_one_array_in_order() -> None:
    studies = [file.study_instance_uid for file in FILES]
    study = max(studies, key=studies.count)
    store, recorded = await kept([file for file in FILES if file.study_instance_uid == study])
    async with client_of(store, recorded) as client:
        answer = await client.get(f"studies/{study}/metadata")
    got = [item["00080018"]["Value"][0] for item in answer.json()]
    assert got == [one.sop_instance_uid for one in recorded.locations]


async def test_names_of_all_scripts_are_utf_8() -> None:
    expected = {
        "chrGreek.dcm": "Διονυσιος",
        "chrRuss.dcm": "Люкceмбypг",
        "chrGerm.dcm": "Äneas^Rüdiger",
        "chrX2.dcm": "王^小东",
        "chrH31.dcm": "山田^太郎",
        "chrI2.dcm": "洪^吉洞",
        "chrHbrw.dcm": "שרון^דבורה",
    }
    for name, text in expected.items():
        file = named(name)
        store, recorded = await kept([file])
        async with (
            served(reading_app(recorded, store)) as url,
            httpx.AsyncClient(base_url=f"{url}/dicomweb/") as client,
        ):
            document = await metadata_of(client, file)
        assert document["00080005"]["Value"] == ["ISO_IR 192"]
        assert text in document["00100010"]["Value"][0].values(), document["00100010"]


async def test_the_native_model_is_there_for_those_who_ask() -> None:
    file = named("CT_small.dcm")
    store, recorded = await kept([file])
    async with client_of(store, recorded) as client:
        answer = await client.get(
            f"{file.resource}/metadata", headers={"accept": 'multipart/related; type="application/dicom+xml"'}
        )
        document = await metadata_of(client, file)
    (part,) = parts(answer)
    root = ElementTree.fromstring(part.body)
    attributes = {element.get("tag"): element for element in root}
    assert attributes.keys() == document.keys()
    name = attributes["00100010"].find(f"{XML}PersonName/{XML}Alphabetic/{XML}FamilyName")
    assert name is not None
    assert name.text == "CompressedSamples"
    assert attributes["00280010"].get("keyword") == "Rows"
    assert attributes["00280010"].findtext(f"{XML}Value") == "128"
    bulk = attributes["7FE00010"].find(f"{XML}BulkData")
    assert bulk is not None
    assert bulk.get("uri") == document["7FE00010"]["BulkDataURI"]


async def test_short_binary_values_are_inline_in_little_endian_order() -> None:
    file = named("CT_small.dcm")
    store, recorded = await kept([file])
    async with client_of(store, recorded) as client:
        document = await metadata_of(client, file)
    inline = {tag: attribute for tag, attribute in document.items() if "InlineBinary" in attribute}
    dataset = pydicom.dcmread(file.path)
    assert inline
    for tag, attribute in inline.items():
        assert base64.b64decode(attribute["InlineBinary"]) == dataset[int(tag, 16)].value


async def test_urls_begin_with_the_external_endpoint() -> None:
    file = named("CT_small.dcm")
    store, recorded = await kept([file])
    app = reading_app(recorded, store, external_endpoint="https://images.example.org/wado-rs")
    async with served(app) as url, httpx.AsyncClient(base_url=f"{url}/dicomweb/") as client:
        document = await metadata_of(client, file)
    uri = f"https://images.example.org/wado-rs/{file.resource}/bulkdata/7FE00010"
    assert document["7FE00010"]["BulkDataURI"] == uri


@pytest.mark.parametrize("name", ["CT_small.dcm", "image_dfl.dcm", "examples_jpeg2k.dcm", "examples_rgb_color.dcm"])
async def test_what_follows_the_pixel_data_is_part_of_the_metadata(name: str) -> None:
    file = with_trailing_elements(named(name))
    store, recorded = await kept([file])
    async with (
        served(reading_app(recorded, store)) as url,
        httpx.AsyncClient(base_url=f"{url}/dicomweb/") as client,
    ):
        document = await metadata_of(client, file)
        assert list(document) == sorted(document)
        assert document["7FE10010"] == {"vr": "LO", "Value": ["TRAILING"]}
        assert document["7FE11001"] == {"vr": "LO", "Value": ["café"]}
        (signature,) = document["FFFAFFFA"]["Value"]
        assert signature["04000005"] == {"vr": "US", "Value": [7]}
        assert "BulkDataURI" in document["7FE00010"]
        (part,) = parts(await client.get(document["7FE11002"]["BulkDataURI"]))
        assert part.body == LONG_VALUE
        plain = await client.get(
            document["7FE11002"]["BulkDataURI"], headers={"accept": "application/octet-stream", "range": "bytes=5-9"}
        )
        assert (plain.status_code, plain.content) == (206, LONG_VALUE[5:10])


def with_trailing_elements(file: DicomFile) -> DicomFile:
    """The same data set with a private group and digital signatures behind its pixel data."""
    private = explicit(0x7FE10010, b"LO", b"TRAILING") + explicit(0x7FE11001, b"LO", "café ".encode("latin-1"))
    item = (
        b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + explicit(0x04000005, b"US", b"\x07\x00") + b"\xfe\xff\x0d\xe0" + bytes(4)
    )
    signatures = struct.pack("<HH2sHL", 0xFFFA, 0xFFFA, b"SQ", 0, 0xFFFFFFFF) + item + b"\xfe\xff\xdd\xe0" + bytes(4)
    trailing = private + explicit(0x7FE11002, b"OB", LONG_VALUE) + signatures
    deflated = file.transfer_syntax_uid == "1.2.840.10008.1.2.1.99"
    data_set = zlib.decompress(file.data_set, -zlib.MAX_WBITS) if deflated else file.data_set
    data_set = data_set.partition(b"\xfc\xff\xfc\xffOB")[0]  # padding, if any, would come last
    if name_of_charset(file) is None:  # so that the é can be said
        data_set = explicit(0x00080005, b"CS", b"ISO_IR 100") + data_set
    data_set += trailing
    if deflated:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data_set = deflater.compress(data_set) + deflater.flush()
    return replace(file, data_set=data_set)


def name_of_charset(file: DicomFile) -> str | None:
    named = pydicom.dcmread(file.path, stop_before_pixels=True).get("SpecificCharacterSet")
    return str(named) if named else None


def explicit(tag: int, vr: bytes, value: bytes) -> bytes:
    """An element in Explicit VR Little Endian."""
    if vr == b"OB":
        return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


async def test_a_range_of_another_version_gives_the_whole_value() -> None:
    file = named("CT_small.dcm")
    store, recorded = await kept([file])
    async with client_of(store, recorded) as client:
        path = f"{file.resource}/bulkdata/7FE00010"
        whole = await client.get(path, headers={"accept": "application/octet-stream"})
        assert whole.headers["accept-ranges"] == "bytes"
        asked = {"accept": "application/octet-stream", "range": "bytes=10-19"}
        for tag, status, body in (
            (whole.headers["etag"], 206, whole.content[10:20]),
            ('"another"', 200, whole.content),
        ):
            answer = await client.get(path, headers={**asked, "if-range": tag})
            assert (answer.status_code, answer.content) == (status, body)


@pytest.mark.parametrize(("levels", "status"), [(100, 200), (3000, 500)])
async def test_sequences_in_sequences(levels: int, status: int) -> None:
    file = named("CT_small.dcm")
    sequence = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    deep = replace(file, data_set=file.data_set[: file.data_set.index(b"\xe0\x7f\x10\x00")])
    deep = replace(deep, data_set=deep.data_set + sequence * levels + end * levels)
    store, recorded = await kept([deep])
    async with client_of(store, recorded) as client:
        answer = await client.get(f"{file.resource}/metadata")
        assert answer.status_code == status
        assert answer.headers["content-type"].startswith("application/")

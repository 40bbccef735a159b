"""One instance through the ingest, on memory: what is stored, what is announced, what is refused."""

import asyncio
import hashlib
import io
import warnings
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from imaging_services.adapters.files.spool import FileSpools
from imaging_services.adapters.memory.event_sink import MemoryEventSink
from imaging_services.adapters.memory.object_store import MemoryObjectStore
from imaging_services.adapters.memory.spools import MemorySpools
from imaging_services.domain.errors import (
    BackendUnavailable,
    Conflict,
    DataSetMismatch,
    MissingIdentifier,
    NotDicom,
    OutOfResources,
)
from imaging_services.domain.events.envelope import IMAGE_STORED, event_id
from imaging_services.domain.events.payloads import ImageStored
from imaging_services.domain.ingest import heading
from imaging_services.domain.ingest.ingest import Expected, Ingest, Ingested
from support.dicom_files import DicomFile, storable_files
from support.instances import EXPLICIT, blocks, element, encoded, instance, part10

IMPLICIT, BIG, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", str(DeflatedExplicitVRLittleEndian)


def _files() -> tuple[DicomFile, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, about the awkward ones
        return storable_files()


class Fixture:
    """An ingest on memory."""

    def __init__(self) -> None:
        self.store, self.sink, self.spools = MemoryObjectStore("north-images"), MemoryEventSink(), MemorySpools()
        self.ingest = Ingest(
            self.store,
            self.sink,
            self.spools,
            provider="north",
            source="test",
            wado_internal="http://in/wado-rs",
            wado_external="https://out/wado-rs",
        )

    async def receive(self, body: bytes, syntax: str = EXPLICIT, **arguments: object) -> Ingested:
        return await self.ingest.receive(blocks(body), transfer_syntax=syntax, **arguments)

    @property
    def payload(self) -> ImageStored:
        (event,) = self.sink.events
        return ImageStored.model_validate_json(event.data)

    def assert_untouched(self) -> None:
        assert not self.store.objects
        assert not self.sink.events
        assert self.spools.open_spools == 0


@pytest.fixture
def ingesting() -> Fixture:
    return Fixture()


async def test_the_file_holds_the_data_set_as_received(ingesting: Fixture) -> None:
    dataset = instance()
    body = encoded(dataset)
    ingested = await ingesting.receive(body)
    (key, content), *others = ingesting.store.objects.items()
    assert not others
    assert key == ingested.key == hashlib.sha256(content).hexdigest() + ".dcm"
    assert content.endswith(body)
    assert ingested.size == len(content)
    read = pydicom.dcmread(io.BytesIO(content))
    assert read == dataset
    assert read.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID == ingested.sop_instance_uid
    assert (ingested.study_instance_uid, ingested.series_instance_uid) == (
        dataset.StudyInstanceUID,
        dataset.SeriesInstanceUID,
    )


async def test_the_event_tells_header_and_place(ingesting: Fixture) -> None:
    dataset = instance(ImageType=["ORIGINAL", "PRIMARY"], ReferencedImageSequence=[pydicom.Dataset()], StudyID="")
    ingested = await ingesting.receive(encoded(dataset))
    (event,) = ingesting.sink.events
    assert event.type == IMAGE_STORED
    assert event.id == event_id(
        IMAGE_STORED,
        "north",
        dataset.StudyInstanceUID,
        dataset.SeriesInstanceUID,
        dataset.SOPInstanceUID,
        ingested.digest,
    )
    payload = ingesting.payload
    assert payload.store.model_dump() == {
        "provider": "north",
        "bucketName": "north-images",
        "objectName": ingested.key,
        "wadoInternalEndpoint": "http://in/wado-rs",
        "wadoExternalEndpoint": "https://out/wado-rs",
        "size": ingested.size,
        "digest": ingested.digest,
        "pixelDataOffset": ingesting.store.objects[ingested.key].index(b"\xe0\x7f\x10\x00"),
    }
    found = {found.tag: found for found in payload.image.elements}
    assert list(found) == sorted(found)
    assert (found[0x00080008].value, found[0x00080008].values) == ("ORIGINAL", ["ORIGINAL", "PRIMARY"])
    assert (found[0x00081140].vr, found[0x00081140].value) == ("SQ", None)
    assert found[0x00200010].value is None
    assert found[0x00280010].value == "8"
    assert 0x7FE00010 not in found
    assert payload.image.transferSyntaxUID == EXPLICIT
    assert orjson.loads(event.data)["image"]["elements"][0]["group"] == "0008"


async def test_sending_again_changes_nothing(ingesting: Fixture) -> None:
    body = encoded(instance())
    assert await ingesting.receive(body) == await ingesting.receive(body)
    assert len(ingesting.store.objects) == len(ingesting.sink.events) == 1


async def test_the_road_does_not_matter_for_the_key(ingesting: Fixture) -> None:
    body = encoded(instance())
    keys = {
        (await ingesting.ingest.receive(blocks(body, size), transfer_syntax=EXPLICIT)).key for size in (1, 999, 10**6)
    }
    assert len(keys) == 1


@pytest.mark.parametrize("file", _files(), ids=lambda file: file.path.name)
async def test_every_real_file_keeps_its_bytes(file: DicomFile, ingesting: Fixture) -> None:
    ingested = await ingesting.receive(
        file.data_set, file.transfer_syntax_uid, expected=Expected(file.sop_class_uid, file.sop_instance_uid)
    )
    assert ingesting.store.objects[ingested.key].endswith(file.data_set)
    assert (ingested.study_instance_uid, ingested.series_instance_uid, ingested.sop_instance_uid) == file.identity
    assert ingested.transfer_syntax == file.transfer_syntax_uid
    offset = ingesting.payload.store.pixelDataOffset
    if offset is not None:
        assert ingesting.store.objects[ingested.key][offset : offset + 2] in (b"\xe0\x7f", b"\x7f\xe0")


@pytest.mark.parametrize("declared", [IMPLICIT, EXPLICIT, BIG, DEFLATED])
@pytest.mark.parametrize("real", [IMPLICIT, EXPLICIT, BIG])
async def test_a_wrong_native_transfer_syntax_is_put_right(ingesting: Fixture, declared: str, real: str) -> None:
    dataset = instance()
    body = encoded(dataset, real)
    ingested = await ingesting.receive(body, declared)
    assert ingested.transfer_syntax == real
    content = ingesting.store.objects[ingested.key]
    assert content.endswith(body)
    assert pydicom.dcmread(io.BytesIO(content)).PatientName == "Doe^Jane"


async def test_a_compressed_transfer_syntax_stays_declared(ingesting: Fixture) -> None:
    ingested = await ingesting.receive(encoded(instance(), IMPLICIT), "1.2.840.10008.1.2.4.50")
    assert ingested.transfer_syntax == "1.2.840.10008.1.2.4.50"


async def test_a_deflated_data_set_is_read_and_kept(ingesting: Fixture) -> None:
    dataset = instance()
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = deflater.compress(encoded(dataset)) + deflater.flush()
    ingested = await ingesting.receive(body, DEFLATED)
    assert ingested.sop_instance_uid == dataset.SOPInstanceUID
    assert ingesting.store.objects[ingested.key].endswith(body)
    assert ingesting.payload.store.pixelDataOffset is None


async def test_a_deflate_bomb_is_bounded(ingesting: Fixture) -> None:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = encoded(instance(PixelData=None)) + element(0x00420011, b"OB", b"", 1 << 31)
    body = deflater.compress(bomb) + deflater.compress(bytes(100_000_000)) + deflater.flush()
    ingested = await ingesting.receive(body, DEFLATED)  # its identifiers come early: it is kept, not inflated
    assert ingesting.store.objects[ingested.key].endswith(body)


async def test_a_header_longer_than_the_first_look_is_read_from_the_spool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture = Fixture()
    dataset = instance()
    long = dataset.copy()
    long.add_new(0x00420011, "OB", bytes(3 * heading.LONGEST_LOOK))
    body = encoded(long)
    for limit in (8 << 20, 1 << 20):
        ingest = Ingest(fixture.store, fixture.sink, FileSpools(tmp_path, memory_limit=limit), provider="p", source="s")
        ingested = await ingest.receive(blocks(body), transfer_syntax=EXPLICIT)
        content = fixture.store.objects[ingested.key]
        assert content.endswith(body)
        assert hashlib.sha256(content).hexdigest() == ingested.digest
        assert fixture.payload.store.pixelDataOffset == content.index(b"\xe0\x7f\x10\x00")
    assert not list(tmp_path.iterdir())


async def test_identifiers_after_the_first_look_are_checked(ingesting: Fixture) -> None:
    dataset = instance(StudyInstanceUID=None)
    dataset.add_new(0x00189999, "OB", bytes(2 * heading.LONGEST_LOOK))
    with pytest.raises(MissingIdentifier, match="StudyInstanceUID"):
        await ingesting.receive(encoded(dataset))
    ingesting.assert_untouched()
    other = instance()
    other.add_new(0x00189999, "OB", bytes(2 * heading.LONGEST_LOOK))
    with pytest.raises(DataSetMismatch):
        await ingesting.receive(encoded(other), expected=Expected(study_instance_uid="1.2.3"))
    ingesting.assert_untouched()


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", [None, "", "not-a-uid"])
async def test_missing_identifiers_are_refused(ingesting: Fixture, keyword: str, value: str | None) -> None:
    body = encoded(instance(**{keyword: None}))
    if value is not None:
        tags = {"SOPClassUID": 0x00080016, "SOPInstanceUID": 0x00080018, "StudyInstanceUID": 0x0020000D}
        body = element(tags.get(keyword, 0x0020000E), b"UI", value.encode() + b"\0" * (len(value) % 2)) + body
    with pytest.raises(MissingIdentifier, match=keyword):
        await ingesting.receive(body)
    ingesting.assert_untouched()


@pytest.mark.parametrize(
    "body",
    [b"", b"\0" * 5000, b"this is no DICOM " * 1000, bytes(range(256)) * 5000, b"%PDF-1.4" * 400_000],
    ids=["empty", "zeros", "text", "bytes", "3 MB"],
)
async def test_what_is_no_data_set_is_refused(ingesting: Fixture, body: bytes) -> None:
    for syntax in (IMPLICIT, EXPLICIT, BIG, DEFLATED, "1.2.840.10008.1.2.4.90"):
        with pytest.raises(NotDicom):
            await ingesting.receive(body, syntax)
    ingesting.assert_untouched()


async def test_a_file_with_meta_header_is_no_data_set(ingesting: Fixture) -> None:
    with pytest.raises(NotDicom):
        await ingesting.receive(part10(instance()))
    ingesting.assert_untouched()


@pytest.mark.parametrize(
    "expected",
    [Expected(sop_class_uid="1.2.3"), Expected(sop_instance_uid="1.2.3"), Expected(study_instance_uid="1.2.3")],
)
async def test_other_uids_than_the_request_says_are_refused(ingesting: Fixture, expected: Expected) -> None:
    with pytest.raises(DataSetMismatch, match=r"1\.2\.3"):
        await ingesting.receive(encoded(instance()), expected=expected)
    ingesting.assert_untouched()


async def test_padding_of_the_requests_uids_does_not_matter(ingesting: Fixture) -> None:
    dataset = instance()
    await ingesting.receive(encoded(dataset), expected=Expected(sop_instance_uid=dataset.SOPInstanceUID + "\0"))
    assert len(ingesting.sink.events) == 1


async def test_nothing_is_announced_that_is_not_stored(ingesting: Fixture) -> None:
    ingesting.store.failure = OutOfResources("full")
    with pytest.raises(OutOfResources):
        await ingesting.receive(encoded(instance()))
    ingesting.store.failure = None
    ingesting.assert_untouched()


@pytest.mark.parametrize("failure", [BackendUnavailable("down"), Conflict("another provider")])
async def test_success_waits_for_the_record(ingesting: Fixture, failure: Exception) -> None:
    body = encoded(instance())
    ingesting.sink.failure = failure
    with pytest.raises(type(failure)):
        await ingesting.receive(body)
    ingesting.sink.failure = None
    await ingesting.receive(body)
    assert len(ingesting.store.objects) == len(ingesting.sink.events) == 1


async def test_an_object_that_cannot_be_announced_is_not_written_on(
    ingesting: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def never(key: str, body: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    def broken(*arguments: object, **named: object) -> None:
        raise RuntimeError("no event")

    monkeypatch.setattr(ingesting.store, "put", never)
    monkeypatch.setattr("imaging_services.domain.ingest.ingest.image_stored", broken)
    with pytest.raises(RuntimeError, match="no event"):
        await ingesting.receive(encoded(instance()))
    assert ended.is_set()
    ingesting.assert_untouched()


async def test_before_announce_comes_between_object_and_event(ingesting: Fixture) -> None:
    seen: list[tuple[int, int]] = []

    async def hold(ingested: Ingested) -> None:
        assert ingested.key in ingesting.store.objects
        seen.append((len(ingesting.store.objects), len(ingesting.sink.events)))

    identified: list[tuple[str, str]] = []
    ingested = await ingesting.receive(
        encoded(instance()), before_announce=hold, identified=lambda *uids: identified.append(uids)
    )
    assert seen == [(1, 0)]
    assert identified == [(ingested.sop_class_uid, ingested.sop_instance_uid)]


async def test_a_broken_source_leaves_nothing(ingesting: Fixture, tmp_path: Path) -> None:
    async def cut() -> AsyncIterator[bytes]:
        yield encoded(instance())
        yield bytes(9_000_000)
        raise BackendUnavailable("association lost")

    ingest = Ingest(ingesting.store, ingesting.sink, FileSpools(tmp_path), provider="p", source="s")
    with pytest.raises(BackendUnavailable, match="association lost"):
        await ingest.receive(cut(), transfer_syntax=EXPLICIT)
    ingesting.assert_untouched()
    assert not list(tmp_path.iterdir())


async def test_truncated_pixel_data_is_kept(ingesting: Fixture) -> None:
    body = encoded(instance())[:-50]
    ingested = await ingesting.receive(body)
    assert ingesting.store.objects[ingested.key].endswith(body)


async def test_nul_in_text_does_not_reach_the_event(ingesting: Fixture) -> None:
    body = encoded(instance()).replace(b"Doe^Jane", b"Doe\0Jane")
    await ingesting.receive(body)
    assert b"\\u0000" not in ingesting.sink.events[0].data

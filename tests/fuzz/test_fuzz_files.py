"""Part 10 files and data sets that are broken: refused when they come in, and read or refused when they are stored."""

import contextlib
import io
import struct
from pathlib import Path

import httpx
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from imaging_services.apps.dicomweb_ingestion.metadata import read_metadata
from imaging_services.domain.dicom.bulkdata import find_bulk_value, parse_path
from imaging_services.domain.dicom.elements import guess_encoding, scan
from imaging_services.domain.dicom.native_model import native_dicom_model
from imaging_services.domain.dicom.part10 import Part10Stream, read_file_head
from imaging_services.domain.dicom.pixel_layout import read_layout
from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from imaging_services.domain.errors import ImagingError, InvalidInput, NotDicom
from support.dicomweb_in_memory import service_in_memory
from support.fuzzing import fuzzed, noise, pieces
from support.instances import encoded, instance, part10

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's


def small() -> list[bytes]:
    """Files that have a bit of everything."""
    nested = pydicom.Dataset()
    nested.CodeValue = "X"
    nested.ReferencedImageSequence = [instance(PixelData=None)]
    plain = instance(
        ConceptNameCodeSequence=[nested, nested], PatientName="Doe^Jane=山^太", SpecificCharacterSet="ISO_IR 192"
    )
    files = [part10(plain), part10(plain, "1.2.840.10008.1.2"), part10(plain, "1.2.840.10008.1.2.2")]
    for name in ("MR_small_RLE.dcm", "rtplan.dcm", "nested_priv_SQ.dcm", "SC_rgb_small_odd_jpeg.dcm"):
        files.append(Path(str(get_testdata_file(name))).read_bytes()[:12000])
    return files


FILES = small()
DATA_SETS = [encoded(instance()), encoded(instance(), "1.2.840.10008.1.2"), *(file[300:] for file in FILES)]
TAGS = (
    *(
        struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        for tag in (0x7FE00010, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD, 0x0020000D, 0x00080005, 0x00280008)
    ),
    *(b"SQ\0\0", b"OB\0\0", b"UN\0\0", b"DICM", b"\x02\0\x10\0"),
)


@fuzzed(80)
@given(noise(FILES, TAGS), st.booleans())
def test_heads_of_files(file: bytes, ended: bool) -> None:
    with contextlib.suppress(NotDicom):
        found = read_file_head(file, ended=ended)
        assert found is None or 0 <= found.data_set <= len(file)


@fuzzed(40)
@given(noise(FILES, TAGS), st.data())
async def test_files_in_blocks(file: bytes, data: st.DataObject) -> None:
    cut = data.draw(pieces(file))

    async def blocks():
        for block in cut:
            yield block

    stream = Part10Stream(blocks())
    with contextlib.suppress(InvalidInput):
        await stream.open()
        assert file.endswith(b"".join([block async for block in stream]))


@fuzzed(120)
@given(noise(DATA_SETS, TAGS), st.sampled_from([None, EXPLICIT_LITTLE, EXPLICIT_BIG, IMPLICIT_LITTLE]), st.booleans())
def test_headers_of_data_sets(data_set: bytes, encoding: object, ended: bool) -> None:
    with contextlib.suppress(InvalidInput):
        header = scan(data_set, encoding or guess_encoding(data_set), ended=ended)  # type: ignore[arg-type]
        assert header.pixel_data is None or header.pixel_data <= len(data_set)
        assert all(value is None or len(value) <= 4096 for _, _, value in header.elements if value is not None)


@fuzzed(60)
@given(noise(FILES, TAGS))
def test_metadata_of_stored_files(file: bytes) -> None:
    with contextlib.suppress(ImagingError):
        document = read_metadata(opened(file), "http://here/bulkdata/")
        assert native_dicom_model(document)


@fuzzed(40)
@given(noise(FILES, TAGS), st.sampled_from(["7FE00010", "00081140/1/00081155", "0040A043/1/00080100", "00100010"]))
def test_values_of_stored_files(file: bytes, path: str) -> None:
    with contextlib.suppress(ImagingError):
        find_bulk_value(opened(file), parse_path(path))


@fuzzed(40)
@given(noise(FILES, TAGS))
def test_frames_of_stored_files(file: bytes) -> None:
    with contextlib.suppress(ImagingError):
        layout = read_layout(opened(file))
        for number in (1, 2, 1000):
            for start, length in layout.place(number).spans:
                assert start >= 0
                assert length >= 0


def nested(depth: int) -> bytes:
    """Sequences within sequences, each of undefined length."""
    begin = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return begin * depth + end * depth


@pytest.mark.parametrize(("depth", "statuses"), [(10, {200}), (100, {200}), (250, {200, 500}), (3000, {404})])
async def test_sequences_in_sequences(tmp_path: Path, depth: int, statuses: set[int]) -> None:
    plain = instance()
    file = part10(plain)
    place = file.index(struct.pack("<HH", 0x0010, 0x0010))  # behind group 0008
    file = file[:place] + nested(depth) + file[place:]
    transport = httpx.ASGITransport(service_in_memory(tmp_path))
    async with httpx.AsyncClient(transport=transport, base_url="http://here/dicomweb") as client:
        stored = await client.post("studies", content=file, headers={"content-type": "application/dicom"})
        assert stored.status_code == (409 if statuses == {404} else 200)
        for media_type in ("application/dicom+json", 'multipart/related; type="application/dicom+xml"'):
            answer = await client.get(f"studies/{plain.StudyInstanceUID}/metadata", headers={"accept": media_type})
            assert answer.status_code in statuses
        if statuses == {200}:
            assert (await client.get(f"studies/{plain.StudyInstanceUID}/metadata")).text.count('"00081140"') == depth


def opened(file: bytes) -> RangeFile:
    """As it is read from a storage space."""
    view = io.BytesIO(file)

    def fetch(start: int, length: int) -> bytes:
        view.seek(start)
        return view.read(length)

    return RangeFile(b"", len(file), fetch)

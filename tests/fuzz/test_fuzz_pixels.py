"""Stored instances with broken pixel data, asked for in every form: an image, or a refusal that says why."""

import struct
import warnings
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.dicom_files import storable_files
from support.dicomweb import part10_of
from support.dicomweb_in_memory import service_in_a_thread
from support.fuzzing import damaged, fuzzed

pytestmark = pytest.mark.filterwarnings("ignore")  # what codecs and pydicom say of broken data
NAMES = (
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_jp2klossless.dcm",
    "SC_rgb_small_odd_jpeg.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "examples_palette.dcm",
    "liver_1frame.dcm",
)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    FILES = [file for file in storable_files() if file.path.name in NAMES]
KEYS = tuple(struct.pack("<HH", 0x0028, element) for element in (0x02, 0x04, 0x08, 0x10, 0x11, 0x100, 0x101, 0x103))
FORMS = [
    ("/rendered", {"accept": "image/png"}),
    ("/rendered", {"accept": "*/*"}),
    ("/thumbnail", {"accept": "image/jpeg"}),
    (
        "/frames/1",
        {"accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.1'},
    ),
    ("/frames/1", {"accept": 'multipart/related; type="image/jls"; transfer-syntax=1.2.840.10008.1.2.4.80'}),
    ("", {"accept": "application/dicom; transfer-syntax=1.2.840.10008.1.2.4.90"}),
    ("/bulkdata/7FE00010", {"accept": "application/octet-stream, */*"}),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the service, without anything stored."""
    with (
        service_in_a_thread(tmp_path_factory.mktemp("service")) as url,
        httpx.Client(base_url=f"{url}/dicomweb", timeout=60) as opened,
    ):
        yield opened


@st.composite
def broken(draw: st.DrawFn) -> tuple[str, bytes]:
    """An instance's resource, and its file with something wrong in the pixel data or in what describes it."""
    file = draw(st.sampled_from(FILES))
    content = part10_of(file)
    pixels = content.rindex(struct.pack("<HH", 0x7FE0, 0x0010))
    description = content.find(struct.pack("<HH", 0x0028, 0x0002))
    if draw(st.booleans()):
        key = draw(st.sampled_from(KEYS))
        place = content.find(key, description) + 8
        if place > 8:
            value = draw(st.sampled_from([b"\0\0", b"\1\0", b"\7\0", b"\xff\xff", b"\0\x80", b"\x20\0", b"\x40\0"]))
            content = content[:place] + value + content[place + 2 :]
    rest = draw(damaged([content[pixels + 12 :]]))
    return file.resource, content[: pixels + 12] + rest


@fuzzed(30)
@given(broken(), st.sampled_from(FORMS))
def test_broken_pixels(client: httpx.Client, instance: tuple[str, bytes], form: tuple[str, dict[str, str]]) -> None:
    resource, content = instance
    stored = client.post("/studies", content=content, headers={"content-type": "application/dicom"})
    if stored.status_code != 200:
        assert stored.status_code == 409, stored.text
        return
    answer = client.get(f"/{resource}{form[0]}", headers=form[1])
    assert answer.status_code in (200, 404, 406, 500), answer.text
    assert "unforeseen" not in answer.text[:1000], answer.text


@pytest.mark.parametrize("length", [3, 0x7FFF_FFFC, 0xFFFF_FFFC], ids=["no table", "beyond the end", "longest"])
def test_a_basic_offset_table_of_a_wrong_length_is_found_out(client: httpx.Client, length: int) -> None:
    file = next(file for file in FILES if file.path.name == "MR_small_RLE.dcm")
    content = part10_of(file)
    item = content.rindex(struct.pack("<HH", 0x7FE0, 0x0010)) + 12
    content = content[: item + 4] + struct.pack("<I", length) + content[item + 8 :]
    assert client.post("/studies", content=content, headers={"content-type": "application/dicom"}).status_code == 200
    for name, headers in FORMS[:1] + FORMS[3:4]:
        answer = client.get(f"/{file.resource}{name}", headers=headers)
        assert answer.status_code in (404, 406), answer.text


def test_pixel_data_without_a_fragment_has_no_frame(client: httpx.Client) -> None:
    file = next(file for file in FILES if file.path.name == "MR_small_RLE.dcm")
    content = part10_of(file)
    items = content.rindex(struct.pack("<HH", 0x7FE0, 0x0010)) + 12
    content = content[:items] + struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    assert client.post("/studies", content=content, headers={"content-type": "application/dicom"}).status_code == 200
    for name in ("/frames/1", "/bulkdata/7FE00010", "/rendered"):
        answer = client.get(f"/{file.resource}{name}", headers={"accept": "multipart/related, */*"})
        assert answer.status_code == 404, answer.text


@pytest.mark.parametrize("element", [0x0010, 0x0011], ids=["Rows", "Columns"])
def test_an_image_without_pixels_is_not_the_fault_of_the_request(client: httpx.Client, element: int) -> None:
    file = next(file for file in FILES if file.path.name == "MR_small.dcm")
    content = part10_of(file)
    value = content.index(struct.pack("<HH", 0x0028, element)) + 8
    content = content[:value] + b"\0\0" + content[value + 2 :]
    assert client.post("/studies", content=content, headers={"content-type": "application/dicom"}).status_code == 200
    answer = client.get(f"/{file.resource}/rendered", headers={"accept": "image/png"})
    assert answer.status_code in (404, 406, 500), answer.text
    assert "unforeseen" not in answer.text

"""Decoding is what peers decode: pydicom with its own handlers and Pillow, DCMTK for what those cannot."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames
from pydicom.pixels import pixel_array

from imaging_services.adapters.pixels.code_streams import jpeg_2000_code_stream, jpeg_code_stream
from imaging_services.adapters.pixels.decoding import decode_frame
from imaging_services.adapters.pixels.encoding import encode_words
from imaging_services.domain.dicom.pixel_description import FLOAT_PIXEL_DATA, PIXEL_DATA, PixelDescription, describe
from imaging_services.domain.errors import CannotTranscode, NotFound, PermanentError
from imaging_services.domain.retrieve.frames import open_frames
from support.dicom_files import DicomFile, storable_files
from support.dicomweb import part10_of
from support.pixels import an_image, decoded_by_dcmtk, pydicom_file, stored

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of awkward files

OUT_OF_REACH = {  # of pydicom with the libraries that the tests have, or broken on purpose
    "badVR.dcm",
    "GDCMJ2K_TextGBR.dcm",
    "JPEG-lossy.dcm",
    "JPGExtended.dcm",
    "JPEG2000-embedded-sequence-delimiter.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_truncated.dcm",
    "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_jls_lossy_sample.dcm",
    "SC_rgb_jpeg.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
}


def with_pixels() -> list[DicomFile]:
    files = []
    for file in storable_files():
        if "PixelData" in pydicom.dcmread(file.path) and file.path.name not in OUT_OF_REACH:
            files.append(file)
    return files


async def frames_of(file: DicomFile) -> tuple[PixelDescription, list[np.ndarray], list[str]]:
    frames = await open_frames(*await stored(part10_of(file)))
    decoded = [decode_frame(await frames.encoded(number), frames.pixels) for number in range(1, frames.count + 1)]
    return frames.pixels, [one.array for one in decoded], [one.photometric_interpretation for one in decoded]


async def test_every_file_decodes_as_pydicom_decodes_it() -> None:
    compared = 0
    for file in with_pixels():
        pixels, arrays, colours = await frames_of(file)
        raw = colours[0] == pixels.photometric_interpretation or colours[0] == "YBR_FULL"
        for index, array in enumerate(arrays):
            peer = pixel_array(pydicom.dcmread(part10(file)), index=index, raw=raw)
            np.testing.assert_array_equal(array, peer, err_msg=file.path.name)
            assert array.dtype == peer.dtype.newbyteorder("=")
        compared += 1
    assert compared > 45


def part10(file: DicomFile) -> io.BytesIO:
    return io.BytesIO(part10_of(file))


@pytest.mark.parametrize(
    ("name", "program", "tolerance"),
    [
        ("SC_rgb_jpeg_gdcm.dcm", "dcmdjpeg", 0),
        ("JPGExtended.dcm", "dcmdjpeg", 1),  # two inverse transforms may round differently
        ("MR_small_jpeg_ls_lossless.dcm", "dcmdjpls", 0),
        ("JPEGLSNearLossless_08.dcm", "dcmdjpls", 0),
        ("JPEGLSNearLossless_16.dcm", "dcmdjpls", 0),
        ("SC_rgb_jls_lossy_line.dcm", "dcmdjpls", 0),
        ("SC_rgb_jls_lossy_sample.dcm", "dcmdjpls", 0),
    ],
)
async def test_what_pydicom_cannot_decode_is_as_dcmtk_decodes_it(
    name: str, program: str, tolerance: int, tmp_path: Path
) -> None:
    path = Path(pydicom.__file__).parent / "data" / "test_files" / name
    dataset = pydicom.dcmread(path)
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    pixels = describe(dataset, transfer_syntax_uid=syntax, tag=PIXEL_DATA, frames=1)
    (frame,) = generate_frames(dataset.PixelData, number_of_frames=1)
    peer = await decoded_by_dcmtk(program, path.read_bytes(), tmp_path)
    difference = np.abs(decode_frame(frame, pixels).array.astype(int) - peer.pixel_array)
    assert difference.max() <= tolerance


def a_description(**changes: object) -> PixelDescription:
    values = {
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "tag": PIXEL_DATA,
        "frames": 1,
        "rows": 2,
        "columns": 2,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "planar_configuration": 0,
        "bits_allocated": 16,
        "bits_stored": 12,
        "high_bit": 11,
        "pixel_representation": 0,
    } | changes
    return PixelDescription(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words", "expected"),
    [
        ({}, [0x0FFF, 0xF001, 0x8000, 5], [0x0FFF, 1, 0, 5]),
        ({"high_bit": 15}, [0xFFF0, 0x0010, 0x001F, 0], [0x0FFF, 1, 1, 0]),
        ({"pixel_representation": 1}, [0x0FFF, 0x0800, 0x07FF, 0xF801], [-1, -2048, 2047, -2047]),
        ({"pixel_representation": 1, "bits_stored": 16, "high_bit": 15}, [0xFFFF, 0x8000, 0, 1], [-1, -32768, 0, 1]),
    ],
)
def test_stored_values_are_the_bits_up_to_high_bit(
    changes: dict[str, object], words: list[int], expected: list[int]
) -> None:
    frame = np.array(words, "<u2").tobytes()
    assert decode_frame(frame, a_description(**changes)).array.reshape(-1).tolist() == expected


def test_planes_and_float_and_single_bits() -> None:
    planes = bytes(range(12))
    coloured = a_description(samples_per_pixel=3, planar_configuration=1, bits_allocated=8, bits_stored=8, high_bit=7)
    assert decode_frame(planes, coloured).array[0, 1].tolist() == [1, 5, 9]
    floats = np.array([1.5, -2, 0, 4], "<f4")
    floating = a_description(tag=FLOAT_PIXEL_DATA, bits_allocated=32, bits_stored=32, high_bit=31)
    assert decode_frame(floats.tobytes(), floating).array.reshape(-1).tolist() == floats.tolist()
    bits = a_description(bits_allocated=1, bits_stored=1, high_bit=0)
    assert decode_frame(b"\x0d", bits).array.reshape(-1).tolist() == [1, 0, 1, 1]


def test_an_odd_number_of_pixels_cannot_share_chrominance() -> None:
    colours = {"samples_per_pixel": 3, "photometric_interpretation": "YBR_FULL_422"}
    odd = a_description(rows=1, columns=3, bits_allocated=8, bits_stored=8, high_bit=7, **colours)
    with pytest.raises(PermanentError, match="odd number"):
        decode_frame(bytes(6), odd)


@pytest.mark.parametrize(
    "name",
    [
        "JPEG2000.dcm",
        "MR_small_RLE.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
        "JPGExtended.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
    ],
)
async def test_a_broken_frame_is_a_permanent_error(name: str) -> None:
    frames = await open_frames(*await stored(part10_of(pydicom_file(name))))
    whole = await frames.encoded(1)
    for broken in (b"", b"\0" * 100, whole[:70], b"\xff\xd8" * 50, whole[: len(whole) // 3]):
        try:
            array = decode_frame(broken, frames.pixels).array
        except PermanentError:
            continue
        assert array.shape == frames.pixels.shape, "a codec may fill up what is missing at the end"
        assert len(broken) > 100


def test_a_code_stream_that_is_larger_than_its_header_never_reaches_a_codec() -> None:
    frame = b"\xff\xd8\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00"
    assert jpeg_code_stream(frame).rows == 65535
    pixels = a_description(transfer_syntax_uid="1.2.840.10008.1.2.4.50", bits_allocated=8, bits_stored=8, high_bit=7)
    with pytest.raises(PermanentError, match="65535 x 65535"):
        decode_frame(frame, pixels)
    with pytest.raises(PermanentError, match="no JPEG 2000"):
        jpeg_2000_code_stream(b"\xff\x4f\xff\x51")


def test_what_is_not_decoded_is_said() -> None:
    with pytest.raises(CannotTranscode, match="MPEG"):
        decode_frame(b"", a_description(transfer_syntax_uid="1.2.840.10008.1.2.4.102"))
    with pytest.raises(CannotTranscode, match="12 bits"):
        decode_frame(bytes(8), a_description(bits_allocated=12))
    with pytest.raises(NotFound):
        describe(pydicom.Dataset(), transfer_syntax_uid="1.2", tag=PIXEL_DATA, frames=1)
    nothing = pydicom.dcmread(io.BytesIO(an_image(np.zeros((1, 2, 2), np.uint8))))
    nothing.Rows = 0
    with pytest.raises(NotFound, match="0"):
        describe(nothing, transfer_syntax_uid="1.2", tag=PIXEL_DATA, frames=1)


async def test_a_frame_too_long_for_memory_is_refused_before_it_is_read() -> None:
    dataset = pydicom.dcmread(io.BytesIO(an_image(np.zeros((1, 2, 2), np.uint16))))
    dataset.Rows = dataset.Columns = 65535
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset)
    frames = await open_frames(*await stored(buffer.getvalue()))
    with pytest.raises(CannotTranscode, match="too long"):
        await frames.encoded(1)


async def test_frames_are_read_as_they_are_encoded() -> None:
    file = pydicom_file("SC_rgb_rle_2frame.dcm")
    frames = await open_frames(*await stored(part10_of(file)))
    expected = list(generate_frames(pydicom.dcmread(file.path).PixelData, number_of_frames=2))
    assert [await frames.encoded(number) for number in (1, 2)] == expected
    with pytest.raises(NotFound):
        await frames.encoded(3)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"])
def test_a_frame_that_is_cut_off_never_passes_for_a_whole_one(syntax: str) -> None:
    noise = np.random.default_rng(1).integers(0, 4096, (64, 64), dtype=np.uint16)
    pixels = a_description(rows=64, columns=64, transfer_syntax_uid=syntax)
    whole = encode_words(noise, pixels, syntax)
    np.testing.assert_array_equal(decode_frame(whole, pixels).array, noise)
    with pytest.raises(PermanentError):
        decode_frame(whole[: len(whole) // 2], pixels)

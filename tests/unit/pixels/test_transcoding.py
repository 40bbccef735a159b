"""Transcoding: lossless stays lossless, loss is declared, and what comes out is what peers read."""

import io
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate_extended, generate_frames

from imaging_services.adapters.pixels.decoding import decode_frame
from imaging_services.adapters.pixels.syntaxes import (
    COMPRESSED,
    HTJ2K_LOSSLESS,
    HTJ2K_LOSSLESS_RPCL,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    JPEG_LS_NEAR_LOSSLESS,
    LOSSY_METHODS,
    RLE,
    can_transcode,
)
from imaging_services.adapters.pixels.transcoder import TranscodedInstance, Transcoder
from imaging_services.adapters.pixels.workers import PixelWorkers
from imaging_services.domain.dicom.pixel_description import PIXEL_DATA, describe
from imaging_services.domain.dicom.transfer_syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from imaging_services.domain.errors import CannotTranscode, NotFound, PermanentError
from support.dicomweb import part10_of
from support.pixels import an_image, decoded_by_dcmtk, pydicom_file, stored

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of awkward files

NATIVE = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
LOSSLESS = sorted(COMPRESSED - LOSSY_METHODS.keys())
NOISE = np.random.default_rng(7)
RAMP = np.arange(3 * 33 * 47).reshape(3, 33, 47)

IMAGES = {
    "signed 16 of 16": an_image((RAMP * 13 - 9000).astype(np.int16)),
    "signed 12 of 16": an_image((RAMP % 4096 - 2048).astype(np.int16), bits_stored=12),
    "unsigned 12 of 16": an_image((RAMP % 4096).astype(np.uint16), bits_stored=12),
    "overlay above 12 bits": an_image((RAMP % 4096 + (RAMP % 2) * 0x8000).astype(np.uint16), bits_stored=12),
    "8 bits, odd length": an_image((RAMP[:1] % 251).astype(np.uint8)),
    "colour noise": an_image(NOISE.integers(0, 256, (2, 41, 35, 3), dtype=np.uint8)),
    "colour of 16 bits": an_image(NOISE.integers(0, 65536, (1, 20, 30, 3), dtype=np.uint16)),
}
FILES = (
    "CT_small.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_jp2klossless.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_rle_2frame.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "SC_rgb_dcmtk_+eb+cy+np.dcm",
    "SC_rgb_gdcm_KY.dcm",
    "examples_palette.dcm",
    "image_dfl.dcm",
    "JPGExtended.dcm",
)
SOURCES = {**IMAGES, **{name: part10_of(pydicom_file(name)) for name in FILES}}


@pytest.fixture
async def workers() -> AsyncIterator[PixelWorkers]:
    made = PixelWorkers(2)
    yield made
    made.close()


async def transcoded(content: bytes, target: str, workers: PixelWorkers) -> tuple[TranscodedInstance, pydicom.Dataset]:
    store, location = await stored(content)
    instance = await Transcoder(store, workers).transcode(location, target)
    result = b"".join([block async for block in instance.part10()])
    dataset = pydicom.dcmread(io.BytesIO(result))
    assert dataset.file_meta.TransferSyntaxUID == instance.transfer_syntax_uid
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID == instance.sop_instance_uid
    return instance, dataset


def pixels_of(dataset: pydicom.Dataset) -> tuple[str, list[np.ndarray]]:
    """Colour space and frames by our own decoder, which ``test_decoding`` holds to peers."""
    count = int(dataset.get("NumberOfFrames") or 1)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        frames = list(generate_frames(dataset.PixelData, number_of_frames=count))
    else:
        if not syntax.is_little_endian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, ">u2").astype("<u2").tobytes()
        length = len(dataset.PixelData) // count
        frames = [dataset.PixelData[i * length : (i + 1) * length] for i in range(count)]
        syntax = EXPLICIT_VR_LITTLE_ENDIAN
    pixels = describe(dataset, transfer_syntax_uid=str(syntax), tag=PIXEL_DATA, frames=count)
    decoded = [decode_frame(frame, pixels) for frame in frames]
    return decoded[0].photometric_interpretation, [frame.array for frame in decoded]


@pytest.mark.parametrize("name", SOURCES)
async def test_lossless_targets_keep_every_pixel(name: str, workers: PixelWorkers) -> None:
    before = pydicom.dcmread(io.BytesIO(SOURCES[name]))
    colours, expected = pixels_of(before)
    for target in (*NATIVE, *LOSSLESS):
        instance, after = await transcoded(SOURCES[name], target, workers)
        assert instance.transfer_syntax_uid == target
        assert instance.sop_instance_uid == before.SOPInstanceUID, "nothing is lost, so it is the same instance"
        now, found = pixels_of(after)
        assert now == colours, target
        assert len(found) == len(expected), target
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=target)
        for keyword in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "Rows", "PatientName"):
            assert after.get(keyword) == before.get(keyword), keyword
        if after.SamplesPerPixel == 3 and before.file_meta.TransferSyntaxUID.is_encapsulated:
            assert after.file_meta.TransferSyntaxUID == before.file_meta.TransferSyntaxUID or (
                after.PlanarConfiguration == 0
            )


@pytest.mark.parametrize("name", IMAGES)
async def test_what_lies_above_high_bit_is_kept_too(name: str, workers: PixelWorkers) -> None:
    before = pydicom.dcmread(io.BytesIO(SOURCES[name])).PixelData
    for target in LOSSLESS:
        _, compressed = await transcoded(SOURCES[name], target, workers)
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, compressed)
        _, after = await transcoded(buffer.getvalue(), EXPLICIT_VR_LITTLE_ENDIAN, workers)
        assert after.PixelData == before, target


@pytest.mark.parametrize(
    ("program", "targets"),
    [
        ("dcmdjpeg", (JPEG_LOSSLESS, JPEG_LOSSLESS_SV1)),
        ("dcmdjpls", (JPEG_LS_LOSSLESS,)),
        ("dcmdrle", (RLE,)),
    ],
)
async def test_dcmtk_reads_the_same_pixels(
    program: str, targets: tuple[str, ...], tmp_path: Path, workers: PixelWorkers
) -> None:
    for (name, content), target in itertools.product(IMAGES.items(), targets):
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, (await transcoded(content, target, workers))[1])
        read = await decoded_by_dcmtk(program, buffer.getvalue(), tmp_path)
        assert read.PixelData == pydicom.dcmread(io.BytesIO(content)).PixelData, (name, target)


@pytest.mark.parametrize("target", [HTJ2K_LOSSLESS, HTJ2K_LOSSLESS_RPCL])
async def test_openjpeg_reads_what_openjph_wrote(target: str, workers: PixelWorkers) -> None:
    for name, content in IMAGES.items():
        _, expected = pixels_of(pydicom.dcmread(io.BytesIO(content)))
        _, after = await transcoded(content, target, workers)
        frames = generate_frames(after.PixelData, number_of_frames=len(expected))
        if "overlay" not in name:
            for frame, array in zip(frames, expected, strict=True):
                np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(frame), array, err_msg=name)


async def test_colours_are_named_as_the_target_has_them(workers: PixelWorkers) -> None:
    names = {
        target: (await transcoded(IMAGES["colour noise"], target, workers))[1].PhotometricInterpretation
        for target in sorted(COMPRESSED)
    }
    assert names == {
        **dict.fromkeys(COMPRESSED, "RGB"),
        **dict.fromkeys((JPEG_BASELINE, JPEG_EXTENDED), "YBR_FULL_422"),
        **dict.fromkeys(("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201"), "YBR_RCT"),
        **dict.fromkeys(("1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203"), "YBR_RCT"),
        "1.2.840.10008.1.2.4.91": "YBR_ICT",
    }


@pytest.mark.parametrize("target", sorted(LOSSY_METHODS))
async def test_loss_is_declared_and_makes_another_instance(target: str, workers: PixelWorkers) -> None:
    smooth = (np.add.outer(np.arange(64), np.arange(80)) % 256).astype(np.uint8)[np.newaxis]
    content = an_image(smooth)
    instance, after = await transcoded(content, target, workers)
    assert instance.sop_instance_uid != "1.2.3.4"
    assert instance.sop_instance_uid.startswith("2.25.")
    again, _ = await transcoded(content, target, workers)
    assert again.sop_instance_uid == instance.sop_instance_uid
    assert after.LossyImageCompression == "01"
    assert float(after.LossyImageCompressionRatio) > 1
    assert after.LossyImageCompressionMethod == LOSSY_METHODS[target]
    assert list(after.ImageType) == ["DERIVED", "PRIMARY"]
    assert after.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"
    assert after.DerivationCodeSequence[0].CodeValue == "113040"
    _, (found,) = pixels_of(after)
    assert np.abs(found.astype(int) - smooth[0]).max() < 24
    assert np.abs(found.astype(int) - smooth[0]).mean() < 2


async def test_near_lossless_never_leaves_bits_stored(workers: PixelWorkers) -> None:
    bright = NOISE.integers(4000, 4096, (1, 50, 50), dtype=np.uint16)
    _, after = await transcoded(an_image(bright, bits_stored=12), JPEG_LS_NEAR_LOSSLESS, workers)
    (frame,) = generate_frames(after.PixelData, number_of_frames=1)
    raw = imagecodecs.jpegls_decode(frame)
    assert raw.max() < 4096
    assert np.abs(raw.astype(int) - bright[0]).max() <= 4


async def test_what_was_lost_stays_declared(workers: PixelWorkers) -> None:
    content = part10_of(pydicom_file("SC_rgb_dcmtk_+eb+cy+np.dcm"))
    dataset = pydicom.dcmread(io.BytesIO(content))
    del dataset.LossyImageCompression
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset)
    instance, after = await transcoded(buffer.getvalue(), EXPLICIT_VR_LITTLE_ENDIAN, workers)
    assert (after.LossyImageCompression, after.PhotometricInterpretation) == ("01", "RGB")
    assert instance.sop_instance_uid == dataset.SOPInstanceUID, "this step loses nothing"


@pytest.mark.parametrize(
    ("name", "target", "reason"),
    [
        ("signed 16 of 16", JPEG_BASELINE, "signed"),
        ("unsigned 12 of 16", JPEG_BASELINE, "12 bits stored"),
        ("colour of 16 bits", JPEG_EXTENDED, "16 bits stored"),
        ("signed 12 of 16", JPEG_LS_NEAR_LOSSLESS, "signed"),
        ("examples_palette.dcm", JPEG_BASELINE, "palette"),
    ],
)
async def test_an_image_that_a_target_has_no_place_for_is_refused(
    name: str, target: str, reason: str, workers: PixelWorkers
) -> None:
    with pytest.raises(CannotTranscode, match=reason):
        await transcoded(SOURCES[name], target, workers)


@pytest.mark.parametrize("name", ["rtdose.dcm", "liver_1frame.dcm", "rtdose_expb.dcm", "liver_expb_1frame.dcm"])
async def test_native_pixel_data_of_any_depth_changes_its_encoding_only(name: str, workers: PixelWorkers) -> None:
    source = pydicom.dcmread(pydicom_file(name).path)
    content = part10_of(pydicom_file(name))
    for target in NATIVE:
        _, after = await transcoded(content, target, workers)
        expected = source.PixelData
        if not source.original_encoding[1]:
            size = max(2, source.BitsAllocated // 8) if source["PixelData"].VR == "OW" else 1
            expected = np.frombuffer(expected, f">u{size}").astype(f"<u{size}").tobytes()
        assert after.PixelData == expected
        assert after.get("NumberOfFrames") == source.get("NumberOfFrames")
    if source.BitsAllocated == 1:
        with pytest.raises(CannotTranscode, match="1 bits allocated"):
            await transcoded(content, JPEG_2000_LOSSLESS, workers)


async def test_instances_without_pixel_data_are_never_compressed(workers: PixelWorkers) -> None:
    for name in ("rtplan.dcm", "test-SR.dcm", "waveform_ecg.dcm", "reportsi.dcm"):
        content = part10_of(pydicom_file(name))
        instance, after = await transcoded(content, JPEG_2000_LOSSLESS, workers)
        assert instance.transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN
        before = pydicom.dcmread(io.BytesIO(content))
        assert after.to_json_dict() == before.to_json_dict(), name


async def test_every_element_survives_every_native_encoding(workers: PixelWorkers) -> None:
    """Big endian words, private sequences, values of unknown VR: the same attributes come out as pydicom reads in."""
    for name in ("ExplVR_BigEnd.dcm", "MR_small_implicit.dcm", "CT_small.dcm", "rtdose_expb.dcm", "waveform_ecg.dcm"):
        content = part10_of(pydicom_file(name))
        before = pydicom.dcmread(io.BytesIO(content))
        for target in NATIVE:
            _, after = await transcoded(content, target, workers)
            for element in before:
                if (
                    element.tag != PIXEL_DATA
                    and element.tag.element
                    and not element.tag.is_private
                    and element.VR not in ("OW", "UN", "OB")
                ):
                    assert after[element.tag].value == element.value, (name, target, element.tag)


def test_what_can_be_transcoded() -> None:
    assert can_transcode("1.2.840.10008.1.2.2", JPEG_LS_LOSSLESS)
    assert can_transcode(JPEG_BASELINE, EXPLICIT_VR_LITTLE_ENDIAN)
    assert not can_transcode("1.2.840.10008.1.2.4.102", EXPLICIT_VR_LITTLE_ENDIAN), "video is not decoded"
    assert not can_transcode(EXPLICIT_VR_LITTLE_ENDIAN, "1.2.840.10008.1.2.2"), "big endian is retired"
    assert can_transcode("1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.102")


async def test_an_object_that_has_vanished_is_not_found(workers: PixelWorkers) -> None:
    store, location = await stored(IMAGES["signed 16 of 16"])
    await store.delete(location.object_name)
    for target in (JPEG_LS_LOSSLESS, IMPLICIT_VR_LITTLE_ENDIAN):
        with pytest.raises(NotFound):
            await Transcoder(store, workers).transcode(location, target)


async def test_pillow_and_dcmtk_see_the_colours_of_lossy_frames(tmp_path: Path, workers: PixelWorkers) -> None:
    across, down = np.meshgrid(np.arange(96), np.arange(64))
    colours = np.stack([across * 2, down * 3, 255 - across], axis=-1).astype(np.uint8)
    content = an_image(colours[np.newaxis])
    for target in (JPEG_BASELINE, "1.2.840.10008.1.2.4.91"):
        _, after = await transcoded(content, target, workers)
        (frame,) = generate_frames(after.PixelData, number_of_frames=1)
        seen = np.asarray(Image.open(io.BytesIO(frame)).convert("RGB")).astype(int)
        assert np.abs(seen - colours).max() < 16, target
    grey = an_image((RAMP[:1] * 2 % 4096).astype(np.uint16), bits_stored=12)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, (await transcoded(grey, JPEG_EXTENDED, workers))[1])
    read = await decoded_by_dcmtk("dcmdjpeg", buffer.getvalue(), tmp_path)
    assert np.abs(read.pixel_array.astype(int) - RAMP[0] * 2 % 4096).max() < 64


async def test_code_streams_are_copied_where_the_target_allows_them(workers: PixelWorkers) -> None:
    """A lossless JPEG-LS frame is right in the near-lossless transfer syntax too: nothing is lost, nothing declared."""
    _, lossless = await transcoded(IMAGES["unsigned 12 of 16"], JPEG_LS_LOSSLESS, workers)
    frames = list(generate_frames(lossless.PixelData, number_of_frames=3))
    lossless.PixelData, lossless.ExtendedOffsetTable, lossless.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, lossless)
    instance, copied = await transcoded(buffer.getvalue(), JPEG_LS_NEAR_LOSSLESS, workers)
    assert list(generate_frames(copied.PixelData, number_of_frames=3)) == frames
    assert (instance.sop_instance_uid, copied.get("LossyImageCompression")) == ("1.2.3.4", None)
    assert "ExtendedOffsetTable" not in copied


async def test_values_that_are_too_long_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imaging_services.adapters.pixels.reencoding.SEQUENCE_BYTES", 80_000)
    icons = {f"{colour}PaletteColorLookupTableData": bytes(70_000) for colour in ("Red", "Green", "Blue")}
    workers = PixelWorkers(1)
    for count, refused in ((2, False), (3, True)):
        content = an_image((RAMP % 256).astype(np.uint8), **dict(list(icons.items())[:count]))
        store, location = await stored(content)
        transcoding = Transcoder(store, workers).transcode(location, RLE)
        if refused:
            with pytest.raises(PermanentError, match="too long together"):
                await transcoding
        else:
            assert (await transcoding).transfer_syntax_uid == RLE
    workers.close()

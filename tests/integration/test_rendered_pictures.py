"""Pictures of real files, compared with pydicom's and with one another (PS3.4 section N.2)."""

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

from support.pixels import pydicom_file
from support.rendering import Images, image_in, path_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of awkward files


@pytest.fixture
async def images() -> AsyncIterator[Images]:
    made = Images()
    yield made
    made.workers.close()


async def png_of(images: Images, name: str, **parameters: str) -> np.ndarray[Any, Any]:
    """The only instance that is there, as values."""
    images.recorded.locations.clear()
    location = await images.keep(name)
    async with images.client() as client:
        answer = await client.get(f"{path_of(location)}/rendered", params=parameters, headers={"accept": "image/png"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert int(answer.headers["content-length"]) == len(answer.content)
    return np.asarray(image_in(answer.content))


def as_pydicom_shows(name: str) -> np.ndarray[Any, Any]:
    """The window that the file has, or all values, with 8 bits."""
    dataset = pydicom.dcmread(pydicom_file(name).path)
    values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset).astype(float)
    if "WindowCenter" not in dataset:
        values = (values - values.min()) / (values.max() - values.min()) * 255
    else:  # pydicom's output range is that of the stored bits after the rescaling
        low, high = (float(apply_voi_lut(np.array([end]), dataset)[0]) for end in (-1e9, 1e9))
        values = (values - low) / (high - low) * 255
    if 0x60003000 in dataset:
        values[dataset.overlay_array(0x6000) > 0] = 255
    return np.rint(values)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "examples_overlay.dcm", "693_J2KI.dcm"])
async def test_gray_images_are_as_pydicom_shows_them(images: Images, name: str) -> None:
    difference = np.abs(await png_of(images, name) - as_pydicom_shows(name))
    assert difference.max() <= 1
    assert difference.mean() < 0.01


async def test_palette_colour_is_as_pydicom_shows_it(images: Images) -> None:
    dataset = pydicom.dcmread(pydicom_file("examples_palette.dcm").path)
    expected = apply_color_lut(dataset.pixel_array, dataset) / 257
    assert np.abs(await png_of(images, "examples_palette.dcm") - expected).max() <= 1


@pytest.mark.parametrize(
    "same",
    [
        (
            "MR_small.dcm",
            "MR_small_RLE.dcm",
            "MR_small_bigendian.dcm",
            "MR_small_implicit.dcm",
            "MR_small_jp2klossless.dcm",
            "MR_small_jpeg_ls_lossless.dcm",
        ),
        ("SC_rgb_gdcm_KY.dcm", "SC_rgb_rle.dcm", "SC_rgb_rle_16bit.dcm", "SC_rgb_rle_32bit.dcm"),
        ("SC_rgb_small_odd.dcm", "SC_rgb_small_odd_big_endian.dcm"),
    ],
    ids=lambda names: names[0],
)
async def test_the_transfer_syntax_makes_no_difference(images: Images, same: tuple[str, ...]) -> None:
    first = await png_of(images, same[0])
    for name in same[1:]:
        assert np.array_equal(await png_of(images, name), first), name


async def test_chrominance_becomes_red_green_and_blue(images: Images) -> None:
    for name in ("SC_ybr_full_422_uncompressed.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_dcmtk_+eb+cy+s4.dcm"):
        shown = await png_of(images, name)
        assert np.abs(shown[5, 50].astype(int) - (255, 0, 0)).max() <= 2, name
        assert np.abs(shown[25, 50].astype(int) - (0, 255, 0)).max() <= 5, name


async def test_parameters_change_the_picture(images: Images) -> None:
    plain = await png_of(images, "CT_small.dcm")
    bones = await png_of(images, "CT_small.dcm", window="400,1800,linear")
    assert plain.shape == bones.shape == (128, 128)
    assert not np.array_equal(plain, bones)
    assert (await png_of(images, "CT_small.dcm", viewport="64,100")).shape == (64, 64)
    corner = await png_of(images, "CT_small.dcm", viewport="32,32,96,64,32,32")
    assert np.array_equal(corner, plain[64:96, 96:128])
    assert np.array_equal(await png_of(images, "CT_small.dcm", viewport="32,32,96,64,-32,32"), corner[:, ::-1])
    assert np.array_equal(await png_of(images, "CT_small.dcm", viewport="128,128,,,,-128"), plain[::-1])
    large = await png_of(images, "CT_small.dcm", viewport="512,512")
    named = await png_of(images, "CT_small.dcm", viewport="512,512", annotation="patient")
    letters = named != large
    assert 500 < letters.sum() == letters[:64, :256].sum()
    assert (named[letters] > 200).sum() > 200
    both = await png_of(images, "CT_small.dcm", viewport="512,512", annotation="patient,technique")
    assert (both != named)[300:].any()

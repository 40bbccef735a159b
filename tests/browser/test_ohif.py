"""The OHIF viewer in Chromium, a page of another origin: it lists the studies, opens one and shows its images."""

import asyncio
import contextlib
import warnings
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from support.chromium import Page, a_page
from support.dicom_files import storable_files
from support.dicomweb_stack import dicomweb_stack, stow
from support.ohif import ohif
from support.ports import a_free_port

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # pydicom's, of awkward files
    pytest.mark.timeout(300),  # the viewer's scripts are 17 MB
]
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    FILES = {file.path.name: file for file in storable_files()}
CT, MR = FILES["CT_small.dcm"], FILES["MR_small_jpeg_ls_lossless.dcm"]
SAME_WITHOUT_COMPRESSION = {"MR_small_jpeg_ls_lossless.dcm": "MR_small.dcm"}
CANVAS = "document.querySelector('canvas.cornerstone-canvas')"
# The viewport's picture, cut to the image's shape in its middle, in as many pixels as the image has.
DRAWN = """(() => {
  const canvas = %s;
  if (!canvas) return null;
  const [columns, rows] = [%d, %d];
  const scale = Math.min(canvas.width / columns, canvas.height / rows);
  const [width, height] = [columns * scale, rows * scale];
  const small = new OffscreenCanvas(columns, rows).getContext('2d');
  small.imageSmoothingQuality = 'high';
  small.drawImage(canvas, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height, 0, 0, columns, rows);
  const pixels = [...small.getImageData(0, 0, columns, rows).data].filter((_, index) => index %% 4 === 1);
  return pixels.some(value => value > 0) ? pixels : null;
})()"""


Picture = np.ndarray[Any, Any]


def by_text(text: str) -> str:
    """The innermost element with this text."""
    return f"[...document.querySelectorAll('*')].filter(one => one.textContent.trim() === {text!r}).pop()"


def expected(name: str) -> Picture:
    """What the viewer should draw, from 0 to 255: the values through the window, without one from least to most."""
    dataset = pydicom.dcmread(str(get_testdata_file(SAME_WITHOUT_COMPRESSION.get(name, name))))
    values = dataset.pixel_array.astype(float)
    low, width = float(values.min()), float(np.ptp(values))
    if "WindowCenter" in dataset:
        low, width = float(dataset.WindowCenter) - float(dataset.WindowWidth) / 2, float(dataset.WindowWidth)
    return np.clip((values - low) / width, 0, 1) * 255


def alike(picture: Picture, image: Picture) -> bool:
    """Equal but for the interpolation; both parts are needed, since a flat picture has the mean of any other."""
    return (
        abs(picture.mean() - image.mean()) < 5
        and abs(picture.std() - image.std()) < 5
        and float(np.corrcoef(picture.ravel(), image.ravel())[0, 1]) > 0.97
    )


async def shows(page: Page, name: str, folder: Path) -> None:
    """The viewport comes to have the image, not merely something that is not black."""
    image = expected(name)
    rows, columns = image.shape
    picture = np.zeros(image.shape)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60):
            while not alike(picture, image):
                pixels = await page.until(DRAWN % (CANVAS, columns, rows))
                picture = np.array(pixels, dtype=float).reshape(rows, columns)
                await asyncio.sleep(0.1)
    await page.screenshot(folder / f"{name}.png")
    assert alike(picture, image), (picture.mean(), picture.std(), image.mean(), image.std())


async def test_the_viewer_lists_studies_and_shows_images(
    nats_server: Any, database: Any, s3_server: Any, bucket: str, tmp_path: Path
) -> None:
    port = a_free_port()
    async with (
        ohif(f"http://127.0.0.1:{port}/dicomweb") as viewer,
        dicomweb_stack(
            nats_server, database, s3_server, bucket, tmp_path, HTTP_PORT=port, HTTP_CORS_ORIGINS=viewer
        ) as url,
        httpx.AsyncClient(base_url=f"{url}/dicomweb/", timeout=60) as client,
        a_page(tmp_path) as page,
    ):
        assert (await stow(client, [CT, MR], tmp_path)).status_code == 200
        await page.before_each_document("localStorage.setItem('shownTours', '[\"basicViewerTour\"]')")
        await page.open(viewer)
        for patient in ("CompressedSamples, CT1", "CompressedSamples, MR1"):
            await page.until(f"!!{by_text(patient)}")
        await page.click(by_text("CompressedSamples, CT1"))
        await page.click(by_text("Basic Viewer"))
        await shows(page, CT.path.name, tmp_path)
        await page.open(f"{viewer}/viewer?StudyInstanceUIDs={MR.study_instance_uid}")
        await shows(page, MR.path.name, tmp_path)
        assert [message for message in page.messages if url in message] == []  # what was asked of us was answered

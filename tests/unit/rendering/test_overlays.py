"""Overlay planes, of images and of presentation states."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.data import get_testdata_file

from imaging_services.adapters.rendering.image import render_frame
from imaging_services.adapters.rendering.overlay import overlay_plane
from imaging_services.adapters.rendering.presentation import Presentation
from imaging_services.adapters.rendering.presentation_state import GRAYSCALE, PresentationState
from support.peers import dcmtk_program
from support.rendering import header_of, item, pixels_of


def with_plane(
    dataset: Dataset, plane: Any, origin: tuple[int, int] = (1, 1), group: int = 0x6000, **more: Any
) -> Dataset:
    """The data set with an overlay; ``more``: elements by their number as text."""
    rows, columns = plane.shape[-2:]
    for element, vr, value in (
        (0x0010, "US", rows),
        (0x0011, "US", columns),
        (0x0040, "CS", "G"),
        (0x0050, "SS", list(origin)),
        (0x0100, "US", 1),
        (0x0102, "US", 0),
        (0x3000, "OW", np.packbits(plane.ravel(), bitorder="little").tobytes()),
        *((int(name, 16), vr, value) for name, (vr, value) in more.items()),
    ):
        dataset.add_new(group << 16 | element, vr, value)
    return dataset


def diagonal(size: int = 6) -> Any:
    return np.eye(size, dtype=bool)


def shown(header: Dataset, array: Any, state: PresentationState | None = None) -> Any:
    image = render_frame(array, "MONOCHROME2", header, pixels_of(header), 1, Presentation(state=state))
    return np.asarray(image)


def test_dcmtk_draws_the_same(tmp_path: Path) -> None:
    path = str(get_testdata_file("examples_overlay.dcm"))
    header = pydicom.dcmread(path)
    subprocess.run([dcmtk_program("dcm2pnm"), "+Wi", "1", path, tmp_path / "shown.pgm"], check=True, timeout=60)
    theirs = np.asarray(Image.open(tmp_path / "shown.pgm")).astype(int)
    ours = shown(header, header.pixel_array).astype(int)
    assert np.abs(ours - theirs).max() <= 1
    assert (ours == 255).sum() > 250


@pytest.mark.parametrize(
    ("origin", "places"),
    [
        ((1, 1), [(n, n) for n in range(6)]),
        ((3, 2), [(n + 2, n + 1) for n in range(6)]),
        ((-1, 0), [(n - 2, n - 1) for n in range(2, 6)]),
        ((6, 7), [(5, 6), (6, 7), (7, 8)]),
        ((100, 100), []),
    ],
)
def test_an_overlay_lies_where_its_origin_says(origin: tuple[int, int], places: list[tuple[int, int]]) -> None:
    black = np.zeros((8, 9), np.uint8)
    header = with_plane(header_of(black), diagonal(), origin)
    assert [tuple(place) for place in np.argwhere(shown(header, black) == 255).tolist()] == places


def test_each_frame_has_its_plane() -> None:
    planes = np.stack([np.zeros((3, 5), bool), np.ones((3, 5), bool)])
    dataset = with_plane(Dataset(), planes, **{"15": ("IS", 2), "51": ("US", 3)})
    found = [overlay_plane(dataset, 0x6000, frame, (3, 5)) for frame in (1, 2, 3, 4, 5)]
    assert [None if plane is None else int(plane.sum()) for plane in found] == [None, None, 0, 15, None]


def test_a_plane_that_is_cut_short_is_left_out() -> None:
    header = with_plane(header_of(np.zeros((8, 8), np.uint8)), diagonal())
    header[0x60000010].value = 600
    assert not shown(header, np.zeros((8, 8), np.uint8)).any()


def test_colour_images_have_overlays_too() -> None:
    black = np.zeros((6, 6, 3), np.uint8)
    header = with_plane(header_of(black, "RGB"), diagonal())
    image = render_frame(black, "RGB", header, pixels_of(header), 1, Presentation())
    assert (np.asarray(image)[diagonal()] == 255).all()


def test_a_presentation_state_says_which_overlays_are_seen() -> None:
    black = np.zeros((6, 6), np.uint8)
    header = with_plane(with_plane(header_of(black), diagonal()), diagonal()[::-1], group=0x6002)
    layer = item(GraphicLayer="ONE", GraphicLayerOrder=1, GraphicLayerRecommendedDisplayGrayscaleValue=0x8080)
    dataset = item(SOPClassUID=GRAYSCALE, GraphicLayerSequence=[layer])
    assert not shown(header, black, PresentationState(dataset, "1.2")).any()
    dataset.add_new(0x60021001, "CS", "ONE")
    assert np.array_equal(shown(header, black, PresentationState(dataset, "1.2")), diagonal()[::-1] * np.uint8(128))
    with_plane(dataset, diagonal(), (1, 1), 0x6002)
    assert np.array_equal(shown(header, black, PresentationState(dataset, "1.2")), diagonal() * np.uint8(128))


def test_a_bitmap_shutter_hides_what_it_covers() -> None:
    bright = np.full((6, 6), 200, np.uint8)
    dataset = item(SOPClassUID=GRAYSCALE, ShutterShape="BITMAP", ShutterOverlayGroup=0x6000, ShutterPresentationValue=0)
    state = PresentationState(with_plane(dataset, diagonal()), "1.2")
    assert np.array_equal(shown(header_of(bright), bright, state), np.where(diagonal(), 0, 200))

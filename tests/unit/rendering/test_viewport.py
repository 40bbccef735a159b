"""Regions, scaling and flips (PS3.18 section 8.3.5.1.3)."""

import numpy as np
import pytest

from imaging_services.adapters.rendering.presentation import Presentation, Region, Viewport
from imaging_services.domain.errors import InvalidInput
from support.rendering import shown

QUARTERS = np.kron(np.array([[10, 20], [30, 40]], np.uint8), np.ones((4, 8), np.uint8))


def size(viewport: Viewport, **attributes: object) -> tuple[int, int]:
    values = np.array(shown(QUARTERS, presentation=Presentation(viewport=viewport), **attributes))
    return values.shape[1], values.shape[0]


def corners(viewport: Viewport) -> list[list[int]]:
    values = np.array(shown(QUARTERS, presentation=Presentation(viewport=viewport)))
    return [[int(values[0, 0]), int(values[0, -1])], [int(values[-1, 0]), int(values[-1, -1])]]


def test_without_a_viewport_pixels_are_kept() -> None:
    assert shown(QUARTERS) == QUARTERS.tolist()
    assert size(Viewport(), PixelAspectRatio=[2, 1]) == (16, 8)


@pytest.mark.parametrize(
    ("viewport", "expected"),
    [
        (Viewport(32, 32), (32, 16)),
        (Viewport(100, 8), (16, 8)),
        (Viewport(columns=4), (4, 2)),
        (Viewport(rows=24), (48, 24)),
        (Viewport(1, 1), (1, 1)),
        (Viewport(100, 100, Region(0, 0, 4, 8)), (50, 100)),
    ],
)
def test_one_side_is_filled_and_the_aspect_is_kept(viewport: Viewport, expected: tuple[int, int]) -> None:
    assert size(viewport) == expected


def test_pixels_that_are_not_square() -> None:
    assert size(Viewport(64, 64), PixelAspectRatio=[2, 1]) == (64, 64)
    assert size(Viewport(64, 64), PixelAspectRatio=[0, 1]) == (64, 32)


def test_regions_and_flips() -> None:
    assert corners(Viewport(32, 32)) == [[10, 20], [30, 40]]
    assert corners(Viewport(8, 8, Region(8, 4, 16, 8))) == [[40, 40], [40, 40]]
    assert corners(Viewport(region=Region(0.5, 0, 1, 0.5, relative=True))) == [[20, 20], [20, 20]]
    assert corners(Viewport(32, 32, flip_horizontally=True)) == [[20, 10], [40, 30]]
    assert corners(Viewport(32, 32, flip_vertically=True)) == [[30, 40], [10, 20]]


@pytest.mark.parametrize("region", [Region(0, 0, 17, 8), Region(16, 0), Region(0, 8), Region(4, 4, 4, 8)])
def test_a_region_outside_is_refused(region: Region) -> None:
    with pytest.raises(InvalidInput, match="region"):
        shown(QUARTERS, presentation=Presentation(viewport=Viewport(8, 8, region)))

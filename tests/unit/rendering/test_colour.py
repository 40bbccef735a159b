"""Colour rendering against values that the Standard's matrices and tables give."""

from typing import Any

import numpy as np
import pytest

from imaging_services.adapters.rendering.lookup_table import expand_segments
from imaging_services.domain.errors import CannotTranscode, PermanentError
from support.rendering import shown

# PS3.3 section C.7.6.3.1.2: red, green, blue, white, black as YBR_FULL.
YBR_FULL = [[76, 85, 255], [150, 44, 21], [29, 255, 107], [255, 128, 128], [0, 128, 128]]
RGB = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]]
YBR_PARTIAL = [[81, 90, 240], [145, 54, 34], [41, 240, 110], [235, 128, 128], [16, 128, 128]]


def near(found: Any, expected: Any, tolerance: int = 2) -> bool:
    return bool(np.abs(np.subtract(found, expected)).max() <= tolerance)


def test_rgb_stays() -> None:
    assert shown(np.array([RGB], np.uint8), "RGB") == [RGB]


def test_rgb_of_other_depths() -> None:
    assert shown(np.array([[[0, 32768, 65535]]], np.uint16), "RGB") == [[[0, 128, 255]]]
    assert shown(np.array([[[0, 2048, 4095]]], np.uint16), "RGB", BitsStored=12) == [[[0, 128, 255]]]


@pytest.mark.parametrize("photometric", ["YBR_FULL", "YBR_FULL_422"])
def test_ybr_full(photometric: str) -> None:
    assert near(shown(np.array([YBR_FULL], np.uint8), photometric), [RGB])


def test_ybr_partial() -> None:
    assert near(shown(np.array([YBR_PARTIAL], np.uint8), "YBR_PARTIAL_420"), [RGB])


def test_what_is_no_colour_image_for_a_screen_is_not_acceptable() -> None:
    with pytest.raises(CannotTranscode, match="HSV"):
        shown(np.array([RGB], np.uint8), "HSV")
    with pytest.raises(CannotTranscode, match="4 samples"):
        shown(np.zeros((2, 2, 4), np.uint8), "CMYK")


def palette(bits: int, first: int, *columns: Any) -> dict[str, Any]:
    names = ("Red", "Green", "Blue")
    entries = 3
    found: dict[str, Any] = {}
    for name, data in zip(names, columns, strict=True):
        found[f"{name}PaletteColorLookupTableDescriptor"] = [entries, first, bits]
        found[f"{name}PaletteColorLookupTableData"] = data
    return found


def words(*values: int) -> bytes:
    return np.array(values, "<u2").tobytes()


STORED = np.array([[4, 5, 6, 7, 200]], np.uint8)


@pytest.mark.parametrize(
    "tables",
    [
        palette(16, 5, words(65535, 0, 0), words(0, 65535, 0), words(0, 0, 65535)),
        palette(8, 5, words(255, 0, 0), words(0, 255, 0), words(0, 0, 255)),
        palette(8, 5, bytes([255, 0, 0, 0]), bytes([0, 255, 0, 0]), bytes([0, 0, 255, 0])),
        palette(16, 5, words(255, 0, 0), words(0, 255, 0), words(0, 0, 255)),
    ],
    ids=["16 bits", "8 bits in words", "8 bits packed", "8 bits that are declared as 16"],
)
def test_palette_colour(tables: dict[str, Any]) -> None:
    red, green, blue = RGB[:3]
    assert shown(STORED, "PALETTE COLOR", **tables) == [[red, red, green, blue, blue]]


def test_a_palette_of_signed_values() -> None:
    tables = palette(8, 65536 - 1, words(255, 0, 0), words(0, 255, 0), words(0, 0, 255))
    assert shown(np.array([[-1, 0, 1]], np.int8), "PALETTE COLOR", **tables) == [RGB[:3]]


def test_a_missing_palette_is_named() -> None:
    with pytest.raises(PermanentError, match="RedPaletteColorLookupTableDescriptor"):
        shown(STORED, "PALETTE COLOR")


def test_segmented_palettes() -> None:
    discrete_linear = [0, 2, 0, 10, 1, 5, 60]
    assert expand_segments(discrete_linear, 16).tolist() == [0, 10, 20, 30, 40, 50, 60]
    # Two segments from byte 0 on are repeated.
    indirect = [*discrete_linear, 2, 2, 0, 0]
    assert expand_segments(indirect, 16).tolist() == [0, 10, 20, 30, 40, 50, 60] * 2
    one_of_them = [0, 1, 7, 1, 2, 9, 2, 1, 6, 0]  # from byte 6, the linear segment: it goes on from the last value
    assert expand_segments(one_of_them, 16).tolist() == [7, 8, 9, 9, 9]


@pytest.mark.parametrize("broken", [[3, 1, 0], [1, 2, 5], [0, 1, 7, 2, 1, 6, 0, 2, 1, 6, 0, 1]])
def test_broken_segments_are_refused(broken: list[int]) -> None:
    with pytest.raises(PermanentError, match="segmented palette"):
        expand_segments(broken, 16)


def test_empty_segments_end_a_table() -> None:
    assert expand_segments([0, 1, 7, 0, 0, 0, 1, 9], 16).tolist() == [7]
    assert expand_segments([0, 0] * 100_000, 16).tolist() == []  # which took seconds


def test_a_segmented_palette_in_an_image() -> None:
    tables: dict[str, Any] = {}
    for name in ("Red", "Green", "Blue"):
        tables[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tables[f"Segmented{name}PaletteColorLookupTableData"] = words(0, 1, 0, 1, 255, 65535)
    assert shown(np.array([[0, 128, 255]], np.uint8), "PALETTE COLOR", **tables) == [
        [[0, 0, 0], [128, 128, 128], [255, 255, 255]]
    ]


def test_supplemental_palette_colours_the_values_beyond() -> None:
    tables = palette(8, 200, words(255, 0, 0), words(0, 255, 0), words(0, 0, 255))
    stored = np.array([[0, 100, 200, 201, 202]], np.uint8)
    assert shown(stored, PixelPresentation="MIXED", **tables) == [[[0] * 3, [100] * 3, *RGB[:3]]]
    assert shown(stored, **tables) == [[0, 100, 200, 201, 202]]

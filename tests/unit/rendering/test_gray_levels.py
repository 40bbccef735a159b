"""Grayscale rendering, value by value, against the formulas of PS3.3 sections C.11.1 and C.11.2."""

import math
from typing import Any

import numpy as np
import pytest

from imaging_services.adapters.rendering.presentation import Presentation, Window
from imaging_services.domain.errors import PermanentError
from support.rendering import item, shown


def row(*values: float, dtype: str = "int16") -> np.ndarray[Any, Any]:
    return np.array([values], dtype)


def windowed(center: float, width: float, function: str = "LINEAR") -> Presentation:
    return Presentation(window=Window(center, width, function))  # type: ignore[arg-type]


def linear(value: float, center: float, width: float) -> int:
    if value <= center - 0.5 - (width - 1) / 2:
        return 0
    if value > center - 0.5 + (width - 1) / 2:
        return 255
    return round(((value - (center - 0.5)) / (width - 1) + 0.5) * 255)


def linear_exact(value: float, center: float, width: float) -> int:
    if value <= center - width / 2:
        return 0
    return 255 if value > center + width / 2 else round(((value - center) / width + 0.5) * 255)


def sigmoid(value: float, center: float, width: float) -> int:
    return round(255 / (1 + math.exp(min(700, -4 * (value - center) / width))))


VALUES = (-2000, -110, -109, 0, 39, 40, 41, 190, 191, 3000)


@pytest.mark.parametrize("function", [linear, linear_exact, sigmoid], ids=["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("window", [(40, 300), (40, 1), (0.5, 2), (-100.25, 77.5)], ids=str)
def test_window_functions(function: Any, window: tuple[float, float]) -> None:
    name = function.__name__.upper()
    expected = [function(value, *window) for value in VALUES]
    of_the_request = shown(row(*VALUES), presentation=windowed(*window, name))[0]
    of_the_header = shown(row(*VALUES), WindowCenter=window[0], WindowWidth=window[1], VOILUTFunction=name)[0]
    assert np.abs(np.subtract(of_the_request, expected)).max() <= 1  # .5 is rounded to even, once
    assert of_the_header == of_the_request


def test_the_narrowest_window_is_a_threshold() -> None:
    assert shown(row(39, 40, 41), presentation=windowed(40.5, 1))[0] == [0, 0, 255]


def test_slope_and_intercept_come_before_the_window() -> None:
    stored = row(0, 1024, 1064, 2048, dtype="uint16")
    levels = shown(stored, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40.5, WindowWidth=81)[0]
    assert levels == [0, 0, 128, 255]


def test_the_first_of_several_windows_is_taken() -> None:
    assert shown(row(0, 100), WindowCenter=["50.5", "0"], WindowWidth=["101", "2"]) == [[0, 255]]


def test_without_a_window_the_values_are_spread() -> None:
    assert shown(row(-100, 0, 100)) == [[0, 128, 255]]
    assert shown(row(-100, 0, 100), RescaleSlope=-1, RescaleIntercept=0) == [[255, 128, 0]]
    assert shown(row(7, 7)) == [[0, 0]]


def test_an_unusable_window_counts_as_none() -> None:
    assert shown(row(-100, 0, 100), WindowCenter=0, WindowWidth=0) == [[0, 128, 255]]


def test_eight_bits_without_a_window_stay_as_they_are() -> None:
    assert shown(row(0, 10, 200, dtype="uint8")) == [[0, 10, 200]]
    assert shown(row(0, 1, 3, dtype="uint8"), BitsStored=2) == [[0, 85, 255]]
    assert shown(row(0, 1, dtype="uint8"), BitsStored=1) == [[0, 255]]


def test_monochrome1_is_inverted() -> None:
    assert shown(row(0, 10, 255, dtype="uint8"), "MONOCHROME1") == [[255, 245, 0]]
    assert shown(row(0, 50, 100), "MONOCHROME1", windowed(50.5, 101)) == [[255, 127, 0]]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_count(photometric: str) -> None:
    ends = {"MONOCHROME1": [255, 0], "MONOCHROME2": [0, 255]}[photometric]
    assert shown(row(-2000, 100, 300), photometric, PixelPaddingValue=-2000) == [[0, *ends]]
    limits = {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -1990}
    assert shown(row(-2000, -1995, 100, 300), photometric, **limits) == [[0, 0, *ends]]


def test_a_padding_value_of_the_other_signedness() -> None:
    assert shown(row(-2000, 100, 300), PixelPaddingValue=65536 - 2000) == [[0, 0, 255]]


def test_modality_lut_sequence() -> None:
    table = item(LUTDescriptor=[3, 10, 16], LUTData=[0, 1000, 4000])
    stored = row(0, 10, 11, 12, 500, dtype="uint16")
    assert shown(stored, ModalityLUTSequence=[table], WindowCenter=2000.5, WindowWidth=4001) == [[0, 0, 64, 255, 255]]


@pytest.mark.parametrize("packed", [[0, 100, 255], bytes([0, 100, 255, 0])], ids=["words", "bytes"])
def test_voi_lut_sequence_of_eight_bits(packed: Any) -> None:
    table = item(LUTDescriptor=[3, 0, 8], LUTData=packed)
    stored = row(1024, 1025, 1026, 3000, dtype="uint16")
    levels = shown(
        stored, VOILUTSequence=[table], RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=1, WindowWidth=1
    )
    assert levels == [[0, 100, 255, 255]]


def test_voi_lut_sequence_that_starts_below_zero() -> None:
    table = item(LUTDescriptor=[4, 65536 - 2, 12], LUTData=[0, 1365, 2730, 4095])
    assert shown(row(-2, -1, 0, 1), VOILUTSequence=[table]) == [[0, 85, 170, 255]]


def test_the_request_goes_before_the_voi_lut_sequence() -> None:
    table = item(LUTDescriptor=[2, 0, 8], LUTData=[255, 0])
    assert shown(row(0, 100), presentation=windowed(50.5, 101), VOILUTSequence=[table]) == [[0, 255]]


def test_functional_groups_of_the_frame() -> None:
    groups = [
        item(
            FrameVOILUTSequence=[item(WindowCenter=center, WindowWidth=101)],
            PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=intercept)],
        )
        for center, intercept in ((50.5, 0), (150.5, 100))
    ]
    for frame in (1, 2):
        levels = shown(row(0, 50, 100), frame=frame, PerFrameFunctionalGroupsSequence=groups)
        assert levels == [[0, 128, 255]]
    shared = item(FrameVOILUTSequence=[item(WindowCenter=50.5, WindowWidth=101)])
    assert shown(row(0, 50, 100), frame=2, SharedFunctionalGroupsSequence=[shared]) == [[0, 128, 255]]


def test_values_of_more_than_sixteen_bits_and_floats() -> None:
    assert shown(row(0, 2**30, 2**31, dtype="uint32")) == [[0, 128, 255]]
    assert shown(row(-1.5, 0, 1.5, math.nan, dtype="float32")) == [[0, 128, 255, 0]]
    assert shown(row(math.nan, dtype="float32")) == [[0]]


def test_large_images_are_worked_on_in_blocks() -> None:
    stored = (np.arange(3000 * 700, dtype=np.uint32) % 4096).astype(np.uint16).reshape(3000, 700)
    levels = np.array(shown(stored, BitsStored=12))
    assert levels.min() == 0
    assert np.array_equal(levels, np.rint(stored * (255 / 4095)))


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of such values
@pytest.mark.parametrize(
    "attributes",
    [
        {"WindowCenter": "1e400", "WindowWidth": "10"},
        {"WindowCenter": "nan", "WindowWidth": "10"},
        {"RescaleSlope": "inf", "RescaleIntercept": "0"},
        {"RescaleSlope": "0", "RescaleIntercept": "0"},
        {"VOILUTSequence": [item(LUTDescriptor=[3, 0, 0], LUTData=[1, 2, 3])]},
        {"VOILUTSequence": [item(LUTDescriptor=[3, 0, 16])]},
        {"ModalityLUTSequence": []},
    ],
    ids=str,
)
def test_what_is_broken_counts_as_absent(attributes: dict[str, Any]) -> None:
    assert shown(row(-100, 0, 100), **attributes) == [[0, 128, 255]]


def test_a_table_that_holds_no_numbers_is_refused() -> None:
    table = item(LUTDescriptor=[3, 0, 16])
    table.add_new("LUTData", "LO", ["a", "b", "c"])
    with pytest.raises(PermanentError, match="header is broken"):
        shown(row(0, 1), VOILUTSequence=[table])


def test_extreme_windows_are_clipped() -> None:
    assert shown(row(0, 1), presentation=windowed(1e308, 1e308, "SIGMOID")) == [[5, 5]]
    assert shown(row(0, 1), presentation=windowed(0.5, 1e-300, "LINEAR_EXACT")) == [[0, 255]]

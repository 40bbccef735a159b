"""Softcopy Presentation States: each of their modules on small images."""

from typing import Any

import numpy as np
import pytest

from imaging_services.adapters.rendering.image import render_frame
from imaging_services.adapters.rendering.presentation import Presentation, Region, Viewport
from imaging_services.adapters.rendering.presentation_state import (
    COLOUR,
    GRAYSCALE,
    PresentationState,
    presentation_state_for,
)
from imaging_services.domain.errors import CannotTranscode, InvalidInput
from support.rendering import header_of, item, pixels_of

IMAGE = "1.2.3"


def state(**attributes: Any) -> PresentationState:
    """A state about the image; grayscale unless ``SOPClassUID`` says otherwise."""
    images = [item(ReferencedSOPInstanceUID=IMAGE)]
    about = [item(SeriesInstanceUID="1.2", ReferencedImageSequence=images)]
    dataset = item(**{"SOPClassUID": GRAYSCALE, "ReferencedSeriesSequence": about, **attributes})
    return presentation_state_for(dataset, IMAGE)


def window(center: float, width: float, **about: Any) -> Any:
    return item(WindowCenter=center, WindowWidth=width, **about)


def shown(array: Any, applied: PresentationState, frame: int = 1, viewport: Viewport | None = None, **more: Any) -> Any:
    """The rendered image's values."""
    photometric = more.pop("photometric", "MONOCHROME2" if array.ndim == 2 else "RGB")
    header = header_of(array, photometric, **more)
    presentation = Presentation(viewport=viewport or Viewport(), state=applied)
    image = render_frame(array, photometric, header, pixels_of(header), frame, presentation)
    return np.asarray(image)


def area(left: int, top: int, right: int, bottom: int, **more: Any) -> list[Any]:
    corners = {
        "DisplayedAreaTopLeftHandCorner": [left, top],
        "DisplayedAreaBottomRightHandCorner": [right, bottom],
    }
    return [item(**corners, PresentationSizeMode="SCALE TO FIT", **more)]


def ramp() -> Any:
    return np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_without_luts_a_value_is_shown_as_what_it_is_of_all_that_it_can_be() -> None:
    values = np.array([[0, 2048, 4095]], np.uint16)
    assert shown(values, state(), BitsStored=12).tolist() == [[0, 128, 255]]


def test_what_the_image_says_of_gray_does_not_count() -> None:
    more = {"WindowCenter": 10, "WindowWidth": 1, "RescaleSlope": 5, "RescaleIntercept": 7}
    assert np.array_equal(shown(ramp(), state(), photometric="MONOCHROME1", **more), ramp())


def test_modality_lut_and_window() -> None:
    applied = state(RescaleSlope=2, RescaleIntercept=-100, SoftcopyVOILUTSequence=[window(100.5, 201)])
    assert shown(np.array([[0, 50, 100, 150, 200]], np.uint8), applied).tolist() == [[0, 0, 128, 255, 255]]


def test_windows_of_other_images_and_frames_do_not_count() -> None:
    other = [item(ReferencedSOPInstanceUID="1.9")]
    second = [item(ReferencedSOPInstanceUID=IMAGE, ReferencedFrameNumber=2)]
    windows = [
        window(1, 1, ReferencedImageSequence=other),
        window(5, 1, ReferencedImageSequence=second),
        window(128, 256),
    ]
    applied = state(SoftcopyVOILUTSequence=windows)
    assert np.array_equal(shown(ramp(), applied), ramp())
    assert set(shown(ramp(), applied, frame=2).ravel().tolist()) == {0, 255}


def test_presentation_luts() -> None:
    assert np.array_equal(shown(ramp(), state(PresentationLUTShape="INVERSE")), 255 - ramp())
    table = item(LUTDescriptor=[256, 0, 8], LUTData=[value // 2 for value in range(256)])
    assert np.array_equal(shown(ramp(), state(PresentationLUTSequence=[table])), np.rint(ramp() // 2 * (255 / 255)))


@pytest.mark.parametrize(
    ("rotation", "flip", "turned"),
    [
        (0, "Y", np.fliplr),
        (90, "N", lambda array: np.rot90(array, -1)),
        (180, "N", lambda array: np.rot90(array, 2)),
        (270, "N", np.rot90),
        (90, "Y", lambda array: np.fliplr(np.rot90(array, -1))),
    ],
)
def test_rotation_is_clockwise_and_comes_before_the_flip(rotation: int, flip: str, turned: Any) -> None:
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    applied = state(ImageRotation=rotation, ImageHorizontalFlip=flip)
    assert np.array_equal(shown(values, applied), turned(values))


def test_the_displayed_area_is_cut_out_and_may_reach_beyond_the_image() -> None:
    assert np.array_equal(shown(ramp(), state(DisplayedAreaSelectionSequence=area(3, 2, 5, 4))), ramp()[1:4, 2:5])
    beyond = shown(ramp(), state(DisplayedAreaSelectionSequence=area(0, 0, 17, 16)))
    assert beyond.shape == (17, 18)
    assert np.array_equal(beyond[1:, 1:17], ramp())
    assert not beyond[0].any()


def test_the_corners_of_a_turned_area_are_those_of_the_result() -> None:
    applied = state(ImageRotation=180, DisplayedAreaSelectionSequence=area(5, 4, 3, 2))
    assert np.array_equal(shown(ramp(), applied), np.rot90(ramp()[1:4, 2:5], 2))


def test_an_area_that_is_far_too_large_is_refused() -> None:
    with pytest.raises(CannotTranscode, match="too large"):
        shown(ramp(), state(DisplayedAreaSelectionSequence=area(1, 1, 100_000, 100_000)))


def test_size_of_the_result() -> None:
    magnified = area(1, 1, 8, 4, PresentationPixelMagnificationRatio=3.0)
    magnified[0].PresentationSizeMode = "MAGNIFY"
    assert shown(ramp(), state(DisplayedAreaSelectionSequence=magnified)).shape == (12, 24)
    whole = state(DisplayedAreaSelectionSequence=area(1, 1, 8, 4))
    assert shown(ramp(), whole, viewport=Viewport(16, 16)).shape == (8, 16)
    tall = state(DisplayedAreaSelectionSequence=area(1, 1, 8, 4, PresentationPixelAspectRatio=[2, 1]))
    assert shown(ramp(), tall).shape == (8, 8)
    turned = state(ImageRotation=90, DisplayedAreaSelectionSequence=area(1, 1, 8, 4, PresentationPixelSpacing=[2, 1]))
    assert shown(ramp(), turned, viewport=Viewport(100, None)).shape == (100, 100)


def test_the_region_is_one_of_the_displayed_area() -> None:
    applied = state(DisplayedAreaSelectionSequence=area(5, 5, 12, 12))
    half = Viewport(region=Region(0.5, 0.5, 1.0, 1.0, relative=True))
    assert np.array_equal(shown(ramp(), applied, viewport=half), ramp()[8:12, 8:12])


def test_shutters() -> None:
    bright = np.full((20, 20), 200, np.uint8)
    edges = {
        "ShutterLeftVerticalEdge": 3,
        "ShutterRightVerticalEdge": 10,
        "ShutterUpperHorizontalEdge": 5,
        "ShutterLowerHorizontalEdge": 8,
    }
    seen = shown(bright, state(ShutterShape="RECTANGULAR", ShutterPresentationValue=65535, **edges))
    assert (seen[4:8, 2:10] == 200).all()
    assert (seen == 255).sum() == 400 - 32
    circle = {"CenterOfCircularShutter": [10, 10], "RadiusOfCircularShutter": 5}
    round_ = shown(bright, state(ShutterShape="CIRCULAR", ShutterPresentationValue=0, **circle))
    assert (round_ == 200).sum() == 81
    assert round_[9, 4] == 200
    assert round_[9, 3] == 0
    both = shown(bright, state(ShutterShape=["CIRCULAR", "RECTANGULAR"], ShutterPresentationValue=0, **circle, **edges))
    assert ((both == 200) == ((round_ == 200) & (seen == 200))).all()
    polygon = state(ShutterShape="POLYGONAL", VerticesOfThePolygonalShutter=[1, 1, 1, 20, 20, 1])
    triangle = shown(bright, polygon)
    assert triangle[0, 19] == triangle[19, 0] == triangle[5, 5] == 200
    assert triangle[19, 19] == triangle[10, 11] == 0


def graphic(kind: str, points: list[float], **more: Any) -> Any:
    about = {"GraphicAnnotationUnits": "PIXEL", "GraphicFilled": "N", **more}
    return item(GraphicType=kind, GraphicData=points, GraphicDimensions=2, **about)


def annotated(*graphics: Any, words: Any = (), **more: Any) -> PresentationState:
    layer = item(GraphicLayer="ONE", GraphicLayerOrder=1, GraphicLayerRecommendedDisplayGrayscaleValue=65535)
    objects: dict[str, Any] = {"GraphicObjectSequence": list(graphics), "TextObjectSequence": list(words)}
    return state(GraphicLayerSequence=[layer], GraphicAnnotationSequence=[item(GraphicLayer="ONE", **objects)], **more)


def test_graphics_lie_where_the_pixels_are_shown() -> None:
    black = np.zeros((40, 60), np.uint8)
    line = graphic("POLYLINE", [10.0, 5.0, 10.0, 15.0])
    assert np.argwhere(shown(black, annotated(line)) == 255).tolist() == [[row, 10] for row in range(5, 16)]
    turned = shown(black, annotated(line, ImageRotation=90))
    assert {row for row, _ in np.argwhere(turned == 255).tolist()} == {10}
    doubled = shown(black, annotated(line, DisplayedAreaSelectionSequence=area(1, 1, 30, 20)), viewport=Viewport(60))
    assert np.argwhere(doubled == 255)[0].tolist() == [10, 20]


def test_filled_shapes_curves_and_display_units() -> None:
    black = np.zeros((40, 60), np.uint8)
    circle = shown(black, annotated(graphic("CIRCLE", [30.0, 20.0, 40.0, 20.0], GraphicFilled="Y")))
    assert circle[20, 30] == circle[20, 39] == circle[29, 30] == 255
    assert circle[20, 42] == circle[32, 30] == 0
    ellipse = shown(black, annotated(graphic("ELLIPSE", [10.0, 20.0, 50.0, 20.0, 30.0, 10.0, 30.0, 30.0])))
    assert ellipse[20, 10] == ellipse[10, 30] == 255
    assert ellipse[20, 30] == 0
    curve = shown(black, annotated(graphic("INTERPOLATED", [5.0, 30.0, 30.0, 5.0, 55.0, 30.0])))
    assert curve[5, 30] == 255
    corner = shown(black, annotated(graphic("POINT", [0.5, 0.5], GraphicAnnotationUnits="DISPLAY")))
    assert (corner[18:23, 28:33] == 255).all()


def test_text_stands_in_its_box_with_a_line_to_its_anchor() -> None:
    black = np.zeros((60, 120), np.uint8)
    box = {
        "BoundingBoxTopLeftHandCorner": [0.5, 0.5],
        "BoundingBoxBottomRightHandCorner": [1.0, 1.0],
        "BoundingBoxAnnotationUnits": "DISPLAY",
    }
    anchor = {"AnchorPoint": [5.0, 5.0], "AnchorPointAnnotationUnits": "PIXEL", "AnchorPointVisibility": "Y"}
    words = shown(black, annotated(words=[item(UnformattedTextValue="Nodule\r\n3 mm", **box)]))
    assert not words[:29].any()
    assert words[30:, 60:].max() == 255
    assert shown(black, annotated(words=[item(UnformattedTextValue="x", **box, **anchor)]))[5, 5] == 255
    alone = shown(black, annotated(words=[item(UnformattedTextValue="x", **anchor)]))
    assert alone[:25, :25].max() > 200


def test_colour_images_take_colour_states() -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert np.array_equal(shown(values, state(SOPClassUID=COLOUR, ImageHorizontalFlip="Y")), values[:, ::-1])
    with pytest.raises(InvalidInput, match="not for images of this kind"):
        shown(values, state())


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.4"}, "not a Grayscale or Color"),
        ({"ReferencedSeriesSequence": []}, "not about this image"),
        ({"MaskSubtractionSequence": [item(MaskOperation="AVG_SUB")]}, "masks"),
    ],
)
def test_what_cannot_be_applied_is_said(attributes: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        state(**attributes)


def test_annotations_may_lie_far_away() -> None:
    far = {"AnchorPoint": [1e30, -1e30], "AnchorPointAnnotationUnits": "PIXEL", "AnchorPointVisibility": "Y"}
    line = graphic("POLYLINE", [-1e38, 5.0, 1e38, 5.0])
    drawn = shown(np.zeros((9, 9), np.uint8), annotated(line, words=[item(UnformattedTextValue="x", **far)]))
    assert (drawn[5] == 255).all()


def test_endless_annotations_are_refused() -> None:
    many = graphic("POLYLINE", [1.0] * 200_002)
    with pytest.raises(CannotTranscode, match="too many"):
        shown(ramp(), annotated(many))

"""Presentation states, overlays and de-identification, given whatever a data set can say: a result, or a refusal."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from imaging_services.adapters.pixels.data_sets import Change, data_set_around
from imaging_services.adapters.rendering.image import render_frame
from imaging_services.adapters.rendering.presentation import Presentation, Viewport
from imaging_services.adapters.rendering.presentation_state import GRAYSCALE, presentation_state_for
from imaging_services.domain.dicom.deidentification import Deidentifier
from imaging_services.domain.dicom.range_file import RangeFile
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN
from imaging_services.domain.errors import ImagingError
from support.dicomweb import part10_of
from support.fuzzing import damaged, fuzzed
from support.pixels import pydicom_file
from support.rendering import header_of, item, pixels_of

pytestmark = pytest.mark.filterwarnings("ignore")  # what pydicom says of wrong values
IMAGE = "1.2.3"
FILES = [part10_of(pydicom_file(name))[:6000] for name in ("CT_small.dcm", "MR_small.dcm")]
PIXELS = np.arange(600, dtype=np.uint8).reshape(20, 30)
SMALL = st.integers(-40, 60)
NUMBERS = SMALL | st.sampled_from([-(2**31), 2**31 - 1, 65535, 0])
FLOATS = st.floats(-100, 100, width=32) | st.sampled_from([float("nan"), float("inf"), -1e38, 1e38, 0.5])
WORDS = st.sampled_from(["Y", "N", "PIXEL", "DISPLAY", "MAGNIFY", "TRUE SIZE", "INVERSE", "ONE", ""])
KINDS = st.sampled_from(["POINT", "POLYLINE", "INTERPOLATED", "CIRCLE", "ELLIPSE", "NONE"])
SHAPES = st.lists(st.sampled_from(["RECTANGULAR", "CIRCULAR", "POLYGONAL", "BITMAP", "OTHER"]), max_size=3)


@st.composite
def items(draw: st.DrawFn, **strategies: Any) -> Dataset:
    """An item with some of these attributes."""
    return item(**{name: draw(values) for name, values in strategies.items() if draw(st.integers(0, 9))})


def pair(values: Any) -> Any:
    return st.lists(values, min_size=2, max_size=2) | values | st.lists(values, max_size=4)


REFERENCES = st.lists(
    items(ReferencedSOPInstanceUID=st.sampled_from([IMAGE, "1.9"]), ReferencedFrameNumber=pair(SMALL)), max_size=2
)
TABLES = st.lists(
    items(LUTDescriptor=st.lists(st.integers(0, 65535), max_size=4), LUTData=st.binary(max_size=64)), max_size=2
)
AREAS = items(
    ReferencedImageSequence=REFERENCES,
    DisplayedAreaTopLeftHandCorner=pair(NUMBERS),
    DisplayedAreaBottomRightHandCorner=pair(NUMBERS),
    PresentationSizeMode=WORDS,
    PresentationPixelMagnificationRatio=FLOATS,
    PresentationPixelAspectRatio=pair(SMALL),
)
WINDOWS = items(
    ReferencedImageSequence=REFERENCES,
    WindowCenter=pair(SMALL),
    WindowWidth=pair(SMALL),
    VOILUTFunction=st.sampled_from(["LINEAR", "SIGMOID", "LINEAR_EXACT", "X"]),
    VOILUTSequence=TABLES,
)
GRAPHICS = items(
    GraphicType=KINDS,
    GraphicData=st.lists(FLOATS, max_size=12),
    GraphicAnnotationUnits=WORDS,
    GraphicFilled=WORDS,
)
TEXTS = items(
    UnformattedTextValue=st.text(max_size=20),
    BoundingBoxTopLeftHandCorner=pair(FLOATS),
    BoundingBoxBottomRightHandCorner=pair(FLOATS),
    BoundingBoxAnnotationUnits=WORDS,
    AnchorPoint=pair(FLOATS),
    AnchorPointAnnotationUnits=WORDS,
    AnchorPointVisibility=WORDS,
)
STATES = items(
    DisplayedAreaSelectionSequence=st.lists(AREAS, max_size=2),
    SoftcopyVOILUTSequence=st.lists(WINDOWS, max_size=2),
    PresentationLUTShape=WORDS,
    PresentationLUTSequence=TABLES,
    ModalityLUTSequence=TABLES,
    RescaleSlope=SMALL,
    RescaleIntercept=SMALL,
    ImageRotation=st.sampled_from([0, 90, 180, 270, 45, 65535]),
    ImageHorizontalFlip=WORDS,
    ShutterShape=SHAPES,
    ShutterPresentationValue=st.integers(0, 65535),
    ShutterOverlayGroup=st.sampled_from([0x6000, 0x6001, 0x7FE0, 0]),
    ShutterLeftVerticalEdge=NUMBERS,
    ShutterUpperHorizontalEdge=NUMBERS,
    CenterOfCircularShutter=pair(NUMBERS),
    RadiusOfCircularShutter=NUMBERS,
    VerticesOfThePolygonalShutter=st.lists(NUMBERS, max_size=9),
    GraphicLayerSequence=st.lists(
        items(GraphicLayer=WORDS, GraphicLayerOrder=SMALL, GraphicLayerRecommendedDisplayGrayscaleValue=st.just(9)),
        max_size=2,
    ),
    GraphicAnnotationSequence=st.lists(
        items(
            ReferencedImageSequence=REFERENCES,
            GraphicLayer=WORDS,
            GraphicObjectSequence=st.lists(GRAPHICS, max_size=3),
            TextObjectSequence=st.lists(TEXTS, max_size=2),
        ),
        max_size=2,
    ),
)


@st.composite
def overlaid(draw: st.DrawFn, dataset: Dataset) -> Dataset:
    """The data set with something like an overlay."""
    elements = (
        (0x0010, "US", st.integers(0, 65535) | st.integers(1, 30)),
        (0x0011, "US", st.integers(0, 65535) | st.integers(1, 40)),
        (0x0015, "IS", SMALL),
        (0x0050, "SS", st.lists(st.integers(-32768, 32767) | SMALL, max_size=3)),
        (0x0051, "US", st.integers(0, 9)),
        (0x1001, "CS", WORDS),
        (0x3000, "OW", st.binary(max_size=200)),
    )
    for element, vr, values in elements:
        if draw(st.integers(0, 4)):
            dataset.add_new(0x60000000 | element, vr, draw(values))
    return dataset


@fuzzed(60)
@given(STATES, st.data())
def test_any_presentation_state(dataset: Dataset, data: st.DataObject) -> None:
    about = item(ReferencedImageSequence=[item(ReferencedSOPInstanceUID=IMAGE)])
    dataset.SOPClassUID, dataset.ReferencedSeriesSequence = GRAYSCALE, [about]
    header = data.draw(overlaid(header_of(PIXELS)))
    presentation = Presentation(
        viewport=Viewport(data.draw(st.none() | st.integers(1, 99)), data.draw(st.none() | st.integers(1, 99))),
        state=presentation_state_for(data.draw(overlaid(dataset)), IMAGE),
    )
    try:
        image = render_frame(PIXELS, "MONOCHROME2", header, pixels_of(header), 1, presentation)
    except ImagingError:
        return
    assert image.mode == "L"
    assert max(image.size) <= 16384


@fuzzed(60)
@given(damaged(FILES, [b"SQ\0\0", b"\x08\0\x18\0", b"\x10\0\x10\0PN", b"\xfe\xff\x00\xe0"]))
def test_any_file_is_deidentified_or_refused(content: bytes) -> None:
    file = RangeFile(content, len(content), lambda *_: b"")
    change = Change(EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, "1.2.3", edit=Deidentifier())
    try:
        around = data_set_around(file, change)
    except ImagingError:
        return
    assert around.before

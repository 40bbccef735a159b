"""Softcopy Presentation States: what one of them says about one image (PS3.3 section A.33, PS3.4 annex N)."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom import Dataset

from imaging_services.adapters.rendering.frame_attributes import items_of, number, numbers, text
from imaging_services.domain.errors import CannotTranscode, InvalidInput

GRAYSCALE = "1.2.840.10008.5.1.4.1.1.11.1"
COLOUR = "1.2.840.10008.5.1.4.1.1.11.2"

_APPLIED = (GRAYSCALE, COLOUR)
_LARGEST_AREA = 4096
"""Pixels of a side of the displayed area, which may reach beyond the image; of a larger image twice its side."""


@dataclass(frozen=True, slots=True)
class DisplayedArea:
    """``left`` to ``bottom``: pixels of the image before it is turned, from 0, the latter two just outside.
    ``aspect``: height of a pixel by its width, 0 when it is not said. ``magnification``: pixels of the display for one
    of the image, when the mode is MAGNIFY."""

    left: int
    top: int
    right: int
    bottom: int
    aspect: float = 0.0
    magnification: float = 1.0


@dataclass(frozen=True, slots=True)
class PresentationState:
    """A presentation state and the image, ``sop_instance_uid``, that it is applied to."""

    dataset: Dataset
    sop_instance_uid: str

    @property
    def is_grayscale(self) -> bool:
        """True when it says how stored values become gray."""
        return text(self.dataset, "SOPClassUID") == GRAYSCALE

    @property
    def rotation(self) -> int:
        """Degrees clockwise: 0, 90, 180 or 270 (PS3.3 section C.10.6)."""
        turned = int(number(self.dataset, "ImageRotation") or 0)
        return turned % 360 if turned % 90 == 0 else 0

    @property
    def flip(self) -> bool:
        """True when left and right change places after the rotation."""
        return text(self.dataset, "ImageHorizontalFlip") == "Y"

    def applying(self, keyword: str, frame: int) -> list[Dataset]:
        """Items of a sequence that are about this frame: those that name it, or name no image."""
        found = []
        for item in items_of(self.dataset, keyword):
            references = items_of(item, "ReferencedImageSequence")
            if not references or any(self._refers(reference, frame) for reference in references):
                found.append(item)
        return found

    def displayed_area(self, frame: int, columns: int, rows: int) -> DisplayedArea:
        """What is shown of an image of this size. Raises ``CannotTranscode`` for an area that is too large."""
        for item in self.applying("DisplayedAreaSelectionSequence", frame)[:1]:
            first = numbers(item, "DisplayedAreaTopLeftHandCorner")
            second = numbers(item, "DisplayedAreaBottomRightHandCorner")
            if len(first) == len(second) == 2:
                # The corners are of the turned image, their coordinates are not (PS3.3 section C.10.4).
                (left, right), (top, bottom) = (sorted(ends) for ends in zip(first, second, strict=True))
                area = DisplayedArea(int(left) - 1, int(top) - 1, int(right), int(bottom), _aspect(item), _zoom(item))
                wide = area.right - area.left > max(_LARGEST_AREA, 2 * columns)
                if wide or area.bottom - area.top > max(_LARGEST_AREA, 2 * rows):
                    raise CannotTranscode("the displayed area of the presentation state is too large")
                return area
        return DisplayedArea(0, 0, columns, rows)

    def _refers(self, reference: Dataset, frame: int) -> bool:
        if str(reference.get("ReferencedSOPInstanceUID")) != self.sop_instance_uid:
            return False
        named = numbers(reference, "ReferencedFrameNumber")
        return not named or frame in named


def presentation_state_for(dataset: Dataset, sop_instance_uid: str) -> PresentationState:
    """The state applied to an image. Raises ``InvalidInput`` when it is none, or is about other images only."""
    if text(dataset, "SOPClassUID") not in _APPLIED:
        raise InvalidInput("presentationUID: not a Grayscale or Color Softcopy Presentation State")
    if any(item.get("MaskOperation") for item in items_of(dataset, "MaskSubtractionSequence")):
        raise InvalidInput("presentationUID: masks are not subtracted")
    referred: Sequence[Dataset] = [
        image
        for series in items_of(dataset, "ReferencedSeriesSequence")
        for image in items_of(series, "ReferencedImageSequence")
    ]
    if all(str(one.get("ReferencedSOPInstanceUID")) != sop_instance_uid for one in referred):
        raise InvalidInput("presentationUID: the presentation state is not about this image")
    return PresentationState(dataset, sop_instance_uid)


def _aspect(item: Dataset) -> float:
    """Of Presentation Pixel Spacing, or of Presentation Pixel Aspect Ratio: both vertical, then horizontal."""
    for keyword in ("PresentationPixelSpacing", "PresentationPixelAspectRatio"):
        ratio = numbers(item, keyword)
        if len(ratio) == 2 and min(ratio) > 0 and max(ratio) <= 100 * min(ratio):
            return ratio[0] / ratio[1]
    return 0.0


def _zoom(item: Dataset) -> float:
    ratio = number(item, "PresentationPixelMagnificationRatio")
    return ratio if text(item, "PresentationSizeMode") == "MAGNIFY" and ratio and 0 < ratio <= 100 else 1.0

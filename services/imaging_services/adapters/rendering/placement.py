"""Where the pixels of an image come to lie: displayed area, rotation and flip of a presentation state, then region and
scale of the viewport."""

from dataclasses import dataclass

from PIL import Image

from imaging_services.adapters.rendering.presentation import LARGEST_SIDE, Viewport
from imaging_services.adapters.rendering.presentation_state import DisplayedArea, PresentationState
from imaging_services.adapters.rendering.viewport import Box, fit, region_box, size_of

_CLOCKWISE = {
    90: Image.Transpose.ROTATE_270,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_90,
}
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Placement:
    """``box``: what the viewport shows of the turned area. ``size``: of the result, columns and rows."""

    area: DisplayedArea
    rotation: int
    flip: bool
    aspect: float
    viewport: Viewport
    box: Box
    size: tuple[int, int]

    def place(self, image: Image.Image) -> Image.Image:
        """The image as it is shown, black beside its edges."""
        area = self.area
        if (area.left, area.top, area.right, area.bottom) != (0, 0, *image.size):
            image = image.crop((area.left, area.top, area.right, area.bottom))
        if self.rotation:
            image = image.transpose(_CLOCKWISE[self.rotation])
        if self.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return fit(image, self.viewport, self.aspect)

    def of_pixel(self, column: float, row: float) -> Point:
        """Where a point of the image lies in the result; 0.0, 0.0 is the upper left edge of its first pixel."""
        width, height = self.area.right - self.area.left, self.area.bottom - self.area.top
        x, y = column - self.area.left, row - self.area.top
        for _ in range(self.rotation // 90):
            x, y, width, height = height - y, x, height, width
        return self._shown(width - x if self.flip else x, y)

    def of_display(self, across: float, down: float) -> Point:
        """Where a fraction of the displayed area lies in the result."""
        width, height = turned_size(self.area, self.rotation)
        return self._shown(across * width, down * height)

    def _shown(self, x: float, y: float) -> Point:
        left, top, right, bottom = self.box
        return (x - left) * self.size[0] / (right - left), (y - top) * self.size[1] / (bottom - top)


def placement_of(state: PresentationState, frame: int, columns: int, rows: int, viewport: Viewport) -> Placement:
    """Of a frame with so many columns and rows. Raises ``InvalidInput`` for a region outside of the displayed area,
    ``CannotTranscode`` for an area that is too large."""
    area, rotation = state.displayed_area(frame, columns, rows), state.rotation
    width, height = turned_size(area, rotation)
    aspect = area.aspect or 1.0
    aspect = 1 / aspect if rotation % 180 else aspect
    if viewport.columns is None and viewport.rows is None and (area.magnification != 1.0 or aspect != 1.0):
        # Nothing says how large the display is: pixels of the image stay as wide as they are, or are magnified.
        shown = min(LARGEST_SIDE, max(1, round(width * area.magnification)))
        viewport = Viewport(shown, None, viewport.region)
    box = region_box(viewport.region, width, height)
    return Placement(area, rotation, state.flip, aspect, viewport, box, size_of(box, viewport, aspect))


def turned_size(area: DisplayedArea, rotation: int) -> tuple[int, int]:
    """Columns and rows of the area after the rotation."""
    width, height = area.right - area.left, area.bottom - area.top
    return (height, width) if rotation % 180 else (width, height)

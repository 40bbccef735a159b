"""Display shutters (PS3.3 sections C.7.6.11 and C.11.12): what lies outside of them is not seen."""

from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pydicom import Dataset

from imaging_services.adapters.rendering.frame_attributes import number, numbers, texts
from imaging_services.adapters.rendering.overlay import GROUPS, overlay_plane

Array = np.ndarray[Any, Any]

_MOST_VERTICES = 10_000


def shut(levels: Array, shutter: Dataset, pixel_aspect: float, frame: int) -> Array:
    """The levels, gray or RGB with 8 bits, with Shutter Presentation Value outside of every shape. ``pixel_aspect``:
    height of a pixel by its width, as a circle is one of the display."""
    shapes = texts(shutter, "ShutterShape")
    rows, columns = levels.shape[:2]
    inside = np.ones((rows, columns), bool)
    if "RECTANGULAR" in shapes:
        inside &= _rectangle(shutter, rows, columns)
    if "CIRCULAR" in shapes:
        inside &= _circle(shutter, rows, columns, pixel_aspect)
    if "POLYGONAL" in shapes:
        inside &= _polygon(shutter, rows, columns)
    if "BITMAP" in shapes:
        inside &= _bitmap(shutter, frame, (rows, columns))
    if inside.all():
        return levels
    value = round(min(max(number(shutter, "ShutterPresentationValue") or 0.0, 0.0), 65535.0) / 257)
    outside = ~inside if levels.ndim == 2 else ~inside[..., np.newaxis]
    return np.where(outside, np.uint8(value), levels)


def _rectangle(shutter: Dataset, rows: int, columns: int) -> Array:
    """Edges are columns and rows that are still seen, counted from 1."""
    left, right = number(shutter, "ShutterLeftVerticalEdge"), number(shutter, "ShutterRightVerticalEdge")
    upper, lower = number(shutter, "ShutterUpperHorizontalEdge"), number(shutter, "ShutterLowerHorizontalEdge")
    x, y = np.arange(1, columns + 1), np.arange(1, rows + 1)[:, np.newaxis]
    across = (x >= (1 if left is None else left)) & (x <= (columns if right is None else right))
    down = (y >= (1 if upper is None else upper)) & (y <= (rows if lower is None else lower))
    seen: Array = across & down
    return seen


def _circle(shutter: Dataset, rows: int, columns: int, pixel_aspect: float) -> Array:
    center, radius = numbers(shutter, "CenterOfCircularShutter"), number(shutter, "RadiusOfCircularShutter")
    if len(center) != 2 or radius is None:
        return np.ones((rows, columns), bool)
    x, y = np.arange(1, columns + 1), np.arange(1, rows + 1)[:, np.newaxis]
    seen: Array = (x - center[1]) ** 2 + ((y - center[0]) * pixel_aspect) ** 2 <= radius**2
    return seen


def _polygon(shutter: Dataset, rows: int, columns: int) -> Array:
    """Vertices come as row and column, counted from 1."""
    values = numbers(shutter, "VerticesOfThePolygonalShutter")[: 2 * _MOST_VERTICES]
    corners = [(column - 1, row - 1) for row, column in zip(values[::2], values[1::2], strict=False)]
    if len(corners) < 3:
        return np.ones((rows, columns), bool)
    mask = Image.new("L", (columns, rows), 0)
    ImageDraw.Draw(mask).polygon(corners, fill=1, outline=1)
    return np.asarray(mask) > 0


def _bitmap(shutter: Dataset, frame: int, shape: tuple[int, int]) -> Array:
    """Where the overlay of Shutter Overlay Group has a bit, nothing is seen (PS3.3 section C.7.6.15)."""
    group = number(shutter, "ShutterOverlayGroup")
    plane = None if group is None or group not in GROUPS else overlay_plane(shutter, int(group), frame, shape)
    return np.ones(shape, bool) if plane is None else ~plane

"""Cutting out and scaling (PS3.18 section 8.3.5.1.3)."""

from PIL import Image

from imaging_services.adapters.rendering.presentation import LARGEST_SIDE, Region, Viewport
from imaging_services.domain.errors import InvalidInput, PermanentError

Box = tuple[float, float, float, float]


def fit(image: Image.Image, viewport: Viewport, pixel_aspect: float = 1.0) -> Image.Image:
    """The region of the image, flipped and scaled to fill the viewport in one direction.

    ``pixel_aspect``: height of a pixel by its width. Without a viewport pixels stay as they are, one for one.
    Raises ``InvalidInput`` when the region lies outside of the image, ``PermanentError`` when that has no pixels.
    """
    if not (image.width and image.height):
        raise PermanentError(f"an image of {image.width} columns and {image.height} rows is not rendered")
    box = region_box(viewport.region, image.width, image.height)
    size = size_of(box, viewport, pixel_aspect)
    if box != (0, 0, image.width, image.height) or size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC, box=box)
    if viewport.flip_horizontally:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if viewport.flip_vertically:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return image


def region_box(region: Region, width: int, height: int) -> Box:
    """Left, top, right and bottom in pixels."""
    scale = (width, height) if region.relative else (1, 1)
    left, top = region.left * scale[0], region.top * scale[1]
    right = width if region.right is None else region.right * scale[0]
    bottom = height if region.bottom is None else region.bottom * scale[1]
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise InvalidInput(
            f"viewport: the region lies outside of the image of {width} columns and {height} rows, or is empty"
        )
    return left, top, right, bottom


def size_of(box: Box, viewport: Viewport, pixel_aspect: float) -> tuple[int, int]:
    """Columns and rows of what lies in the box, scaled to the viewport."""
    width, height = box[2] - box[0], box[3] - box[1]
    if viewport.columns is None and viewport.rows is None:
        return max(1, round(width)), max(1, round(height))
    height *= pixel_aspect
    scale = min(
        (viewport.columns or LARGEST_SIDE) / width,
        (viewport.rows or LARGEST_SIDE) / height,
    )
    return max(1, round(width * scale)), max(1, round(height * scale))

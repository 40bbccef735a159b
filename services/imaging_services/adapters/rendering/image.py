"""A decoded frame as an image for display: the pipeline of PS3.4 section N.2, then region, scale and annotations."""

from typing import Any

import numpy as np
from PIL import Image
from pydicom import Dataset

from imaging_services.adapters.rendering.annotation import annotate
from imaging_services.adapters.rendering.colour import as_rgb, from_palette, with_supplement
from imaging_services.adapters.rendering.encoding import encode
from imaging_services.adapters.rendering.frame_attributes import numbers
from imaging_services.adapters.rendering.graphics import draw_graphics
from imaging_services.adapters.rendering.grayscale import gray_levels, image_pipeline
from imaging_services.adapters.rendering.overlay import with_overlays
from imaging_services.adapters.rendering.placement import placement_of
from imaging_services.adapters.rendering.presentation import Presentation
from imaging_services.adapters.rendering.shutter import shut
from imaging_services.adapters.rendering.softcopy import softcopy_pipeline
from imaging_services.adapters.rendering.viewport import fit, region_box, size_of
from imaging_services.domain.dicom.pixel_description import PixelDescription
from imaging_services.domain.errors import InvalidInput, PermanentError

Array = np.ndarray[Any, Any]


def frame_file(
    array: Array,
    photometric_interpretation: str,
    header: Dataset,
    pixels: PixelDescription,
    frame: int,
    media_type: str,
    presentation: Presentation,
) -> bytes:
    """A frame as a file of one of ``encoding``'s media types. Arguments and errors as of ``render_frame``."""
    image = render_frame(array, photometric_interpretation, header, pixels, frame, presentation)
    return encode(image, media_type, presentation, header)


def render_frame(
    array: Array,
    photometric_interpretation: str,
    header: Dataset,
    pixels: PixelDescription,
    frame: int,
    presentation: Presentation,
) -> Image.Image:
    """The image of mode ``L`` or ``RGB``.

    ``array`` has the stored values, interleaved and in ``photometric_interpretation``; ``header`` the sequences and
    tables that rendering needs; ``frame`` counts from 1. Blocking: belongs in a worker thread.

    Raises ``InvalidInput`` for a region outside of the image, ``PermanentError`` for what cannot be rendered.
    """
    try:
        with np.errstate(all="ignore"):  # an extreme window or slope makes extreme numbers, which are clipped
            shown = _displayed(array, photometric_interpretation, header, pixels, frame, presentation)
            image = _placed(np.ascontiguousarray(shown), header, frame, presentation)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:  # what pydicom and NumPy raise
        raise PermanentError(f"the image's header is broken: {error}") from None
    return annotate(image, header, presentation.annotations)


def _placed(levels: Array, header: Dataset, frame: int, presentation: Presentation) -> Image.Image:
    """Overlays, shutters, displayed area, region and scale, then graphics."""
    state = presentation.state
    levels = with_overlays(levels, header, frame, state)
    if state is None:
        return fit(Image.fromarray(levels), presentation.viewport, _pixel_aspect(header))
    rows, columns = levels.shape[:2]
    placement = placement_of(state, frame, columns, rows, presentation.viewport)
    aspect = state.displayed_area(frame, columns, rows).aspect or 1.0
    image = Image.fromarray(np.ascontiguousarray(shut(levels, state.dataset, aspect, frame)))
    return draw_graphics(placement.place(image), state, frame, placement)


def _displayed(
    array: Array,
    photometric_interpretation: str,
    header: Dataset,
    pixels: PixelDescription,
    frame: int,
    presentation: Presentation,
) -> Array:
    """Gray levels or RGB with 8 bits."""
    state = presentation.state
    gray = array.ndim == 2 and photometric_interpretation != "PALETTE COLOR"
    if state is not None and state.is_grayscale != gray:
        raise InvalidInput("presentationUID: the presentation state is not for images of this kind")
    if array.ndim == 3:
        return as_rgb(array, photometric_interpretation, pixels)
    if not gray:
        return from_palette(array, header, pixels)
    if state is not None:
        return gray_levels(array, header, pixels, softcopy_pipeline(array, state, pixels, frame))
    levels = gray_levels(array, header, pixels, image_pipeline(array, header, pixels, frame, presentation.window))
    coloured = with_supplement(levels, array, header, pixels)
    return levels if coloured is None else coloured


def rendered_size(header: Dataset, pixels: PixelDescription, presentation: Presentation) -> tuple[int, int]:
    """Columns and rows that a frame is rendered to. Raises ``InvalidInput`` as ``render_frame``."""
    viewport = presentation.viewport
    if presentation.state is not None:
        return placement_of(presentation.state, 1, pixels.columns, pixels.rows, viewport).size
    return size_of(region_box(viewport.region, pixels.columns, pixels.rows), viewport, _pixel_aspect(header))


def _pixel_aspect(header: Dataset) -> float:
    """Height of a pixel by its width, of Pixel Aspect Ratio (PS3.3 section C.7.6.3.1.7)."""
    ratio = numbers(header, "PixelAspectRatio")
    usable = len(ratio) == 2 and min(ratio) > 0 and max(ratio) <= 100 * min(ratio)
    return ratio[0] / ratio[1] if usable else 1.0

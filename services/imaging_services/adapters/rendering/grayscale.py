"""Stored values to shades of gray: Modality LUT, VOI LUT, polarity (PS3.4 N.2, PS3.3 C.11.1 and C.11.2)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np
from pydicom import Dataset

from imaging_services.adapters.rendering.frame_attributes import first_item, macro, number, numbers, text
from imaging_services.adapters.rendering.lookup_table import read_table
from imaging_services.adapters.rendering.presentation import VoiFunction, Window
from imaging_services.domain.dicom.pixel_description import PixelDescription

Array = np.ndarray[Any, Any]
Transform = Callable[[Array], Array]

_MOST_TABLE_ENTRIES = 1 << 16
_BLOCK_PIXELS = 1 << 20


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Stored values to modality values, these to 0 … 255 or beyond, and what is clipped to 0 … 255 to what is shown."""

    modality: Transform
    voi: Transform
    presentation: Transform


def image_pipeline(
    stored: Array, header: Dataset, pixels: PixelDescription, frame: int, window: Window | None
) -> Pipeline:
    """What the image itself says; ``window`` goes before the header's own."""
    modality = modality_transform(header, pixels, frame)
    voi = voi_transform(header, pixels, frame, window)
    if voi is None:
        voi = _whole_range(stored, pixels, modality, _padding(header, pixels))
    inverted = text(header, "PhotometricInterpretation") == "MONOCHROME1"
    return Pipeline(modality, voi, inverse if inverted else identity)


def gray_levels(stored: Array, header: Dataset, pixels: PixelDescription, pipeline: Pipeline) -> Array:
    """The frame with 8 bits, 0 is black."""
    padding = _padding(header, pixels)
    finite = stored if not pixels.floating else stored[np.isfinite(stored)]
    if not finite.size:
        return np.zeros(stored.shape, np.uint8)
    lowest, highest = finite.min(), finite.max()

    def shades(values: Array) -> Array:
        levels = np.rint(pipeline.presentation(np.clip(pipeline.voi(pipeline.modality(values)), 0, 255)))
        levels = np.where(_is_padding(values, padding), 0, levels)
        return np.nan_to_num(levels).astype(np.uint8)

    if pixels.floating or int(highest) - int(lowest) >= _MOST_TABLE_ENTRIES:
        return _by_blocks(stored, shades)
    start = int(lowest)
    table = shades(np.arange(start, int(highest) + 1, dtype=np.int64))
    return _by_blocks(stored, lambda values: table[values.astype(np.int64) - start])


def identity(levels: Array) -> Array:
    """Low values are dark."""
    return levels


def inverse(levels: Array) -> Array:
    """Low values are bright."""
    inverted: Array = 255 - np.rint(levels)
    return inverted


def modality_transform(header: Dataset, pixels: PixelDescription, frame: int) -> Transform:
    """Stored values to modality values: a table, or slope and intercept, or nothing."""
    item = first_item(header, "ModalityLUTSequence")
    table = read_table(item, little_endian=_little(header), signed=pixels.signed) if item is not None else None
    if table is not None:
        return lambda values: table.apply(values).astype(np.float64)
    group = macro(header, "PixelValueTransformationSequence", frame)
    slope, intercept = number(group, "RescaleSlope"), number(group, "RescaleIntercept")
    if slope is None or intercept is None or slope == 0:
        return lambda values: values.astype(np.float64)
    return lambda values: values.astype(np.float64) * slope + intercept


def voi_transform(header: Dataset, pixels: PixelDescription, frame: int, window: Window | None) -> Transform | None:
    """Modality values to 0 … 255: the given window, else the VOI LUT Sequence, else the header's first window; None
    when there is nothing usable."""
    return voi_of(macro(header, "FrameVOILUTSequence", frame), header, pixels, window)


def voi_of(group: Dataset, header: Dataset, pixels: PixelDescription, window: Window | None = None) -> Transform | None:
    """The same, of an item with the attributes of a VOI LUT; ``header`` has those of the Modality LUT."""
    if window is None:
        item = first_item(group, "VOILUTSequence")
        signed = pixels.signed or (number(header, "RescaleIntercept") or 0) < 0
        table = read_table(item, little_endian=_little(header), signed=signed) if item is not None else None
        if table is not None:
            top = (1 << table.bits) - 1
            return lambda values: table.apply(values) * (255.0 / top)
        window = header_window(group)
    return None if window is None or not window.usable else window_transform(window)


def header_window(group: Dataset) -> Window | None:
    """Window Center and Window Width of an image or functional group."""
    center, width = number(group, "WindowCenter"), number(group, "WindowWidth")
    if center is None or width is None:
        return None
    function = text(group, "VOILUTFunction")
    return Window(center, width, cast(VoiFunction, function) if function in get_args(VoiFunction) else "LINEAR")


def window_transform(window: Window) -> Transform:
    """The function of PS3.3 section C.11.2.1.2 with 0 and 255 as the output's ends; not yet clipped."""
    center, width = window.center, window.width
    if window.function == "SIGMOID":
        return lambda values: 255.0 / (1.0 + np.exp(np.clip((values - center) / width * -4.0, -700, 700)))
    if window.function == "LINEAR_EXACT":
        return lambda values: ((values - center) / width + 0.5) * 255.0
    if width == 1:
        return lambda values: np.where(values > center - 0.5, 255.0, 0.0)
    return lambda values: ((values - (center - 0.5)) / (width - 1) + 0.5) * 255.0


def _whole_range(
    stored: Array, pixels: PixelDescription, modality: Transform, padding: tuple[float, float] | None
) -> Transform:
    """Without a VOI LUT: all that up to 8 bits can hold, which is how captured screens are meant, else from the
    lowest to the highest value there is."""
    unit = np.array([0.0, 1.0])
    if pixels.bits_stored <= 8 and not pixels.signed and np.array_equal(modality(unit), unit):
        low, high = 0.0, float((1 << pixels.bits_stored) - 1)
    else:
        shown = stored[~_is_padding(stored, padding)] if padding else stored
        shown = shown[np.isfinite(shown)] if pixels.floating else shown
        ends = modality(np.array([shown.min(), shown.max()])) if shown.size else np.array([0.0, 0.0])
        low, high = float(ends.min()), float(ends.max())
    return spread(low, high)


def spread(low: float, high: float) -> Transform:
    """From black at ``low`` to white at ``high``."""
    if high <= low:
        return lambda values: np.where(values > low, 255.0, 0.0)
    return lambda values: (values - low) / (high - low) * 255.0


def _padding(header: Dataset, pixels: PixelDescription) -> tuple[float, float] | None:
    """Lowest and highest stored value of the area around the image, which is shown as black (PS3.3 C.7.5.1.1.2)."""
    ends = numbers(header, "PixelPaddingValue")[:1]
    if not ends or pixels.floating:
        return None
    ends += numbers(header, "PixelPaddingRangeLimit")[:1]
    bits = pixels.bits_allocated
    ends = [_as_stored(int(end), bits, signed=pixels.signed) for end in ends]
    return min(ends), max(ends)


def _as_stored(value: int, bits: int, *, signed: bool) -> float:
    """Also for a value that was encoded with the other signedness."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def _is_padding(values: Array, padding: tuple[float, float] | None) -> Array:
    if padding is None:
        return np.zeros(values.shape, bool)
    return (values >= padding[0]) & (values <= padding[1])


def _by_blocks(stored: Array, work: Transform) -> Array:
    """Rows at a time, since the work needs several times the memory of what it works on."""
    levels = np.empty(stored.shape, np.uint8)
    step = max(1, _BLOCK_PIXELS // max(1, stored.shape[1]))
    for row in range(0, stored.shape[0], step):
        levels[row : row + step] = work(stored[row : row + step])
    return levels


def _little(header: Dataset) -> bool:
    little = header.original_encoding[1]
    return True if little is None else little

"""Grayscale Softcopy Presentation States: stored values to P-Values (PS3.4 section N.2.1). What the state leaves out is
an identity, whatever the image says."""

import numpy as np

from imaging_services.adapters.rendering.frame_attributes import first_item, text
from imaging_services.adapters.rendering.grayscale import (
    Array,
    Pipeline,
    Transform,
    identity,
    inverse,
    modality_transform,
    spread,
    voi_of,
)
from imaging_services.adapters.rendering.lookup_table import LookupTable, read_table
from imaging_services.adapters.rendering.presentation_state import PresentationState
from imaging_services.domain.dicom.pixel_description import PixelDescription


def softcopy_pipeline(stored: Array, state: PresentationState, pixels: PixelDescription, frame: int) -> Pipeline:
    """Modality LUT, VOI LUT and Presentation LUT of the state for a frame of the image with these ``pixels``."""
    modality = modality_transform(state.dataset, pixels, frame)
    voi = None
    for item in state.applying("SoftcopyVOILUTSequence", frame)[:1]:
        voi = voi_of(item, state.dataset, pixels)
    return Pipeline(modality, voi or _all(stored, pixels, modality), _presentation_lut(state))


def _all(stored: Array, pixels: PixelDescription, modality: Transform) -> Transform:
    """All that a stored value can be, not only what there is."""
    if pixels.floating:
        finite = stored[np.isfinite(stored)]
        ends = modality(np.array([finite.min(), finite.max()])) if finite.size else np.zeros(2)
    else:
        lowest = -(1 << (pixels.bits_stored - 1)) if pixels.signed else 0
        ends = modality(np.array([lowest, lowest + (1 << pixels.bits_stored) - 1]))
    return spread(float(ends.min()), float(ends.max()))


def _presentation_lut(state: PresentationState) -> Transform:
    item = first_item(state.dataset, "PresentationLUTSequence")
    little = state.dataset.original_encoding[1] is not False
    table = read_table(item, little_endian=little, signed=False) if item is not None else None
    if table is not None:
        return _by_table(table)
    return inverse if text(state.dataset, "PresentationLUTShape") == "INVERSE" else identity


def _by_table(table: LookupTable) -> Transform:
    """The table's input range is that of the VOI LUT's output (PS3.3 section C.11.6.1)."""
    levels = table.entries * (255.0 / ((1 << table.bits) - 1))
    last = len(levels) - 1

    def looked_up(values: Array) -> Array:
        places = np.nan_to_num(np.rint(np.asarray(values, np.float64) * (last / 255.0)))
        found: Array = levels[np.clip(places, 0, last).astype(np.intp)]
        return found

    return looked_up

"""Overlay planes (PS3.3 section C.9): one bit a pixel, drawn over the image. Those in unused bits of the pixel data,
which are retired, are not."""

from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.tag import Tag

from imaging_services.adapters.rendering.frame_attributes import items_of, number, text
from imaging_services.adapters.rendering.presentation_state import PresentationState

Array = np.ndarray[Any, Any]

GROUPS = range(0x6000, 0x6020, 2)
_ROWS, _COLUMNS, _FRAMES = 0x0010, 0x0011, 0x0015
_ORIGIN, _FRAME_ORIGIN, _DATA, _ACTIVATION_LAYER = 0x0050, 0x0051, 0x3000, 0x1001
DATA_TAGS = [group << 16 | _DATA for group in GROUPS]
"""Overlay Data of every group."""


def with_overlays(levels: Array, header: Dataset, frame: int, state: PresentationState | None = None) -> Array:
    """The levels, gray or RGB with 8 bits, with the image's overlays in white; with a presentation state those that it
    activates, its own before the image's, in the gray of their layers."""
    shown = levels
    for group in GROUPS:
        layer = None if state is None else _value(state.dataset, group, _ACTIVATION_LAYER)
        if state is not None and not layer:
            continue
        own = state is not None and group << 16 | _DATA in state.dataset
        plane = overlay_plane(state.dataset if state and own else header, group, frame, levels.shape[:2])
        if plane is not None and plane.any():
            shown = shown.copy() if shown is levels else shown
            shown[plane] = 255 if state is None else _gray_of(state, str(layer))
    return shown


def overlay_plane(dataset: Dataset, group: int, frame: int, shape: tuple[int, ...]) -> Array | None:
    """True where the overlay of a frame has a bit, in the image's rows and columns; None without such an overlay."""
    rows, columns = _whole(dataset, group, _ROWS), _whole(dataset, group, _COLUMNS)
    data = _value(dataset, group, _DATA)
    if not rows or not columns or not isinstance(data, bytes):
        return None
    of_frame = _place(dataset, group, frame)
    start = of_frame * rows * columns
    if of_frame < 0 or len(data) * 8 < start + rows * columns:
        return None
    first = start // 8
    packed = np.frombuffer(_in_order(data, dataset)[first : (start + rows * columns + 7) // 8], np.uint8)
    bits = np.unpackbits(packed, bitorder="little")[start - first * 8 :][: rows * columns].reshape(rows, columns)
    return _moved(bits.astype(bool), _origin(dataset, group), shape)


def _place(dataset: Dataset, group: int, frame: int) -> int:
    """Which of its planes belongs to the frame, from 0; negative when none does. A single one belongs to all."""
    count = _whole(dataset, group, _FRAMES) or 1
    index = frame - (_whole(dataset, group, _FRAME_ORIGIN) or 1)
    if count == 1 and not _whole(dataset, group, _FRAME_ORIGIN):
        return 0
    return index if index < count else -1


def _moved(plane: Array, origin: tuple[int, int], shape: tuple[int, ...]) -> Array:
    """The plane where its origin has it; what lies beside the image is cut off."""
    rows, columns = shape
    top, left = origin[0] - 1, origin[1] - 1
    bottom, right = min(rows, top + plane.shape[0]), min(columns, left + plane.shape[1])
    found = np.zeros((rows, columns), bool)
    if bottom > max(0, top) and right > max(0, left):
        inside = plane[max(0, -top) : bottom - top, max(0, -left) : right - left]
        found[max(0, top) : bottom, max(0, left) : right] = inside
    return found


def _origin(dataset: Dataset, group: int) -> tuple[int, int]:
    value = _value(dataset, group, _ORIGIN)
    return (int(value[0]), int(value[1])) if value is not None and len(value) == 2 else (1, 1)


def _in_order(data: bytes, dataset: Dataset) -> bytes:
    """Words of a big endian file have their second byte first."""
    if dataset.original_encoding[1] is not False or len(data) % 2:
        return data
    return np.frombuffer(data, np.uint16).byteswap().tobytes()


def _whole(dataset: Dataset, group: int, element: int) -> int:
    value = _value(dataset, group, element)
    return value if isinstance(value, int) and value > 0 else 0


def _value(dataset: Dataset, group: int, element: int) -> Any:
    tag = Tag(group, element)
    return dataset[tag].value if tag in dataset else None


def _gray_of(state: PresentationState, name: str) -> int:
    for layer in items_of(state.dataset, "GraphicLayerSequence"):
        value = number(layer, "GraphicLayerRecommendedDisplayGrayscaleValue")
        if text(layer, "GraphicLayer") == name.strip().upper() and value is not None:
            return round(min(max(value, 0.0), 65535.0) / 257)
    return 255

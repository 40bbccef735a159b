"""Animated GIFs, made frame by frame so that no more than one is held."""

from typing import Any

import numpy as np
from PIL.GifImagePlugin import getdata, getheader
from pydicom import Dataset

from imaging_services.adapters.rendering.frame_attributes import numbers
from imaging_services.adapters.rendering.gif_palette import with_palette
from imaging_services.adapters.rendering.image import render_frame
from imaging_services.adapters.rendering.presentation import Presentation
from imaging_services.domain.dicom.pixel_description import PixelDescription

_DEFAULT_FRAME_MS = 100.0
_SHORTEST_FRAME_MS = 20.0
"""GIF counts in hundredths of a second, and viewers slow down what is shorter."""


class Animation:
    """One file under way; its last byte is ``end``."""

    end = b";"

    def __init__(self, header: Dataset, pixels: PixelDescription, presentation: Presentation) -> None:
        self._header, self._pixels, self._presentation = header, pixels, presentation
        self._duration = frame_milliseconds(header)
        self._started = False

    def add(self, array: np.ndarray[Any, Any], photometric_interpretation: str, frame: int) -> bytes:
        """The bytes of the next frame, after those of the file's head for the first. Arguments and errors as of
        ``render_frame``; blocking."""
        shown = render_frame(array, photometric_interpretation, self._header, self._pixels, frame, self._presentation)
        coloured = shown.mode != "L"
        image = with_palette(shown) if coloured else shown
        blocks: list[bytes] = []
        if not self._started:
            self._started = True
            blocks = getheader(image.copy(), info={"loop": 0, "optimize": False})[0]
        return b"".join([*blocks, *getdata(image, duration=self._duration, include_color_table=coloured, disposal=1)])


def frame_milliseconds(header: Dataset) -> float:
    """How long a frame is shown: Frame Time, else of a rate (PS3.3 section C.7.6.5)."""
    for keyword in ("FrameTime", "FrameTimeVector"):
        times = [value for value in numbers(header, keyword) if value > 0]
        if times:
            return max(_SHORTEST_FRAME_MS, times[0])
    for keyword in ("RecommendedDisplayFrameRate", "CineRate"):
        rates = [value for value in numbers(header, keyword) if value > 0]
        if rates:
            return max(_SHORTEST_FRAME_MS, 1000.0 / rates[0])
    return _DEFAULT_FRAME_MS

"""How an image is to be shown: what the query parameters of PS3.18 section 8.3.5.1 and of WADO-URI ask for."""

from dataclasses import dataclass, field
from typing import Literal

from imaging_services.adapters.rendering.presentation_state import PresentationState

VoiFunction = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]
Annotation = Literal["patient", "technique"]

DEFAULT_QUALITY = 90
LARGEST_SIDE = 4096
"""Pixels; a larger viewport is refused."""


@dataclass(frozen=True, slots=True)
class Window:
    """A VOI LUT function with its Window Center and Window Width (PS3.3 section C.11.2.1.2)."""

    center: float
    width: float
    function: VoiFunction = "LINEAR"

    @property
    def usable(self) -> bool:
        """False for a width that the function has no result for."""
        return self.width >= 1 if self.function == "LINEAR" else self.width > 0


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the source image; ``right`` and ``bottom`` lie just outside. In pixels, or in fractions of the
    image's size when ``relative``; None is the image's own edge."""

    left: float = 0.0
    top: float = 0.0
    right: float | None = None
    bottom: float | None = None
    relative: bool = False


@dataclass(frozen=True, slots=True)
class Viewport:
    """The largest ``columns`` and ``rows`` of the result, which fills one of them and keeps its aspect; None leaves it
    to the other one, or without both to the source. Flips come after the region is cut out."""

    columns: int | None = None
    rows: int | None = None
    region: Region = field(default_factory=Region)
    flip_horizontally: bool = False
    flip_vertically: bool = False


@dataclass(frozen=True, slots=True)
class Presentation:
    """Everything together. ``quality``: of lossy encodings, 1 to 100. ``icc_profile``: put one into the image.
    ``state``: a presentation state that is applied first."""

    window: Window | None = None
    viewport: Viewport = field(default_factory=Viewport)
    annotations: frozenset[Annotation] = frozenset()
    quality: int = DEFAULT_QUALITY
    icc_profile: bool = False
    state: PresentationState | None = None

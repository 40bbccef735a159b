"""Query parameters of rendered resources (PS3.18 section 8.3.5), read and checked."""

import re
from collections.abc import Mapping
from typing import cast, get_args

from imaging_services.adapters.rendering.presentation import (
    DEFAULT_QUALITY,
    LARGEST_SIDE,
    Annotation,
    Presentation,
    Region,
    Viewport,
    VoiFunction,
    Window,
)
from imaging_services.domain.errors import InvalidInput

_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,16}(?:\.[0-9]{0,16})?|\.[0-9]{1,16})(?:[eE][+-]?[0-9]{1,2})?")
_FUNCTIONS = {name.lower().replace("_", "-"): name for name in get_args(VoiFunction)}
_PROFILES = ("no", "yes")
THUMBNAIL_SIDE = 256
"""Pixels of a thumbnail's longer side, when nothing else is asked for."""


def rendered_presentation(parameters: Mapping[str, str]) -> tuple[Presentation, list[str]]:
    """What the parameters ask for, and warnings of what is ignored, as PS3.18 section 8.3.5.1.1 wants it for
    annotations. Raises ``InvalidInput`` that names the parameter."""
    annotations, unknown = _annotations(parameters.get("annotation"))
    presentation = Presentation(
        window=_window(parameters.get("window")),
        viewport=_viewport(parameters.get("viewport"), region=True),
        annotations=annotations,
        quality=quality("quality", parameters.get("quality")),
        icc_profile=_icc_profile(parameters.get("iccprofile")),
    )
    utf_8_only(parameters.get("charset"))
    warnings = [f"The following annotation values are not supported: {', '.join(unknown)}"] if unknown else []
    return presentation, warnings


def thumbnail_presentation(parameters: Mapping[str, str]) -> Presentation:
    """A thumbnail has a size and nothing else (PS3.18 section 8.3.5.2). Raises ``InvalidInput``."""
    utf_8_only(parameters.get("charset"))
    asked = parameters.get("viewport")
    return Presentation(viewport=_viewport(asked or f"{THUMBNAIL_SIDE},{THUMBNAIL_SIDE}", region=False))


def quality(name: str, value: str | None) -> int:
    """Of lossy compression, 1 to 100."""
    if value is None:
        return DEFAULT_QUALITY
    if not value.isascii() or not value.isdigit() or len(value) > 3 or not 1 <= int(value) <= 100:
        raise InvalidInput(f"{name} is a whole number from 1 to 100")
    return int(value)


def side(name: str, value: str) -> int:
    """Width or height of a rendered image in pixels."""
    if not value.isascii() or not value.isdigit() or len(value) > 9 or not 1 <= int(value) <= LARGEST_SIDE:
        raise InvalidInput(f"{name} is a whole number of pixels from 1 to {LARGEST_SIDE}")
    return int(value)


def decimal(name: str, value: str) -> float:
    """A decimal number."""
    if not _DECIMAL.fullmatch(value.strip()):
        raise InvalidInput(f"{name} is not a decimal number")
    return float(value)


def window_of(name: str, center: str, width: str, function: VoiFunction = "LINEAR") -> Window:
    """A window. Raises ``InvalidInput`` when its width has no meaning for the function."""
    window = Window(decimal(name, center), decimal(name, width), function)
    if not window.usable:
        least = "1 or more" if function == "LINEAR" else "more than 0"
        raise InvalidInput(f"{name}: the width is {least} (PS3.3 section C.11.2.1.2)")
    return window


def _window(value: str | None) -> Window | None:
    if value is None:
        return None
    parts = [part.strip() for part in value.split(",")]
    if len(parts) != 3 or parts[2].lower() not in _FUNCTIONS:
        raise InvalidInput("window is center,width,function with the function linear, linear-exact or sigmoid")
    return window_of("window", parts[0], parts[1], cast(VoiFunction, _FUNCTIONS[parts[2].lower()]))


def _viewport(value: str | None, *, region: bool) -> Viewport:
    if value is None:
        return Viewport()
    parts = [part.strip() for part in value.split(",")]
    if len(parts) < 2 or len(parts) > (6 if region else 2):
        raise InvalidInput(f"viewport is vw,vh{'[,sx,sy,sw,sh]' if region else ''}")
    columns, rows = (side("viewport", part) for part in parts[:2])
    left, top, width, height = (
        decimal("viewport", part) if part else None for part in [*parts[2:], *[""] * (6 - len(parts))]
    )
    if width == 0 or height == 0 or (left or 0) < 0 or (top or 0) < 0:
        raise InvalidInput("viewport: sx and sy are not negative, sw and sh are not 0")
    return Viewport(columns, rows, _region(left or 0.0, top or 0.0, width, height), (width or 1) < 0, (height or 1) < 0)


def _region(left: float, top: float, width: float | None, height: float | None) -> Region:
    """A negative width or height flips, the size is its absolute value."""
    right = None if width is None else left + abs(width)
    bottom = None if height is None else top + abs(height)
    return Region(left, top, right, bottom)


def _annotations(value: str | None) -> tuple[frozenset[Annotation], list[str]]:
    words = [word.strip() for word in value.split(",") if word.strip()] if value else []
    known = frozenset(cast(Annotation, word) for word in words if word in get_args(Annotation))
    # The words come back in a header: nothing but plain ones, and few of them.
    unknown = [re.sub(r"[^\w.-]", "", word, flags=re.ASCII)[:32] for word in words if word not in known]
    return known, unknown[:8]


def _icc_profile(value: str | None) -> bool:
    if value not in (None, *_PROFILES):
        raise InvalidInput(f"iccprofile is one of {', '.join(_PROFILES)}: images are not converted to other profiles")
    return value == "yes"


def utf_8_only(value: str | None) -> None:
    """Check a ``charset`` parameter. Raises ``InvalidInput`` when it leaves out UTF-8."""
    if value is None:
        return
    names = [name.split(";")[0].strip().lower() for name in value.split(",")]
    if not {"utf-8", "utf8", "*"} & set(names):
        raise InvalidInput("charset: text is available in UTF-8 only")

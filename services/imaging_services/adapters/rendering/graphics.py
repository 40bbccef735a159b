"""Graphic annotations of a presentation state (PS3.3 section C.10.5), drawn into the image as it is shown."""

import math
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset

from imaging_services.adapters.rendering.frame_attributes import items_of, number, numbers, text
from imaging_services.adapters.rendering.placement import Placement, Point
from imaging_services.adapters.rendering.presentation_state import PresentationState
from imaging_services.domain.errors import CannotTranscode

_MOST_POINTS = 100_000
_MOST_LETTERS = 100_000
_STEPS = 64
_CURVE_STEPS = 8
_FONT_SIZE = 14
_FAR = 100_000.0
_DOT = 2
"""Half of a point's side, pixels."""

Level = int | tuple[int, int, int]


def draw_graphics(image: Image.Image, state: PresentationState, frame: int, placement: Placement) -> Image.Image:
    """The image with the annotations of the frame, layer by layer. Raises ``CannotTranscode`` for too many."""
    annotations = state.applying("GraphicAnnotationSequence", frame)
    if not annotations:
        return image
    _require_few(annotations)
    layers = {text(layer, "GraphicLayer"): layer for layer in items_of(state.dataset, "GraphicLayerSequence")}
    image = image.copy()
    pen = _Pen(image, placement)
    order = {name: number(layer, "GraphicLayerOrder") or 0.0 for name, layer in layers.items()}
    for annotation in sorted(annotations, key=lambda one: order.get(text(one, "GraphicLayer"), 0.0)):
        pen.choose(layers.get(text(annotation, "GraphicLayer")))
        for graphic in items_of(annotation, "GraphicObjectSequence"):
            pen.graphic(graphic)
        for words in items_of(annotation, "TextObjectSequence"):
            pen.words(words)
    return image


def _require_few(annotations: Sequence[Dataset]) -> None:
    graphics = [one for each in annotations for one in items_of(each, "GraphicObjectSequence")]
    words = [one for each in annotations for one in items_of(each, "TextObjectSequence")]
    points = sum(len(numbers(one, "GraphicData")) // 2 for one in graphics)
    letters = sum(len(str(one.get("UnformattedTextValue") or "")) for one in words)
    if points + len(graphics) > _MOST_POINTS or letters + len(words) > _MOST_LETTERS:
        raise CannotTranscode("the presentation state has too many annotations to be drawn")


class _Pen:
    """Draws in the gray of a layer."""

    def __init__(self, image: Image.Image, placement: Placement) -> None:
        self._draw, self._placement = ImageDraw.Draw(image), placement
        self._coloured = image.mode == "RGB"
        self._font = ImageFont.load_default(_FONT_SIZE)
        self._level, self._edge = self._gray(255), self._gray(0)

    def choose(self, layer: Dataset | None) -> None:
        """Take the layer's recommended gray, else white."""
        value = None if layer is None else number(layer, "GraphicLayerRecommendedDisplayGrayscaleValue")
        level = 255 if value is None else round(min(max(value, 0.0), 65535.0) / 257)
        self._level, self._edge = self._gray(level), self._gray(0 if level > 127 else 255)

    def graphic(self, graphic: Dataset) -> None:
        """A point, a line, a curve, a circle or an ellipse; filled when that is said."""
        data = numbers(graphic, "GraphicData")
        points = list(zip(data[::2], data[1::2], strict=False))
        kind = text(graphic, "GraphicType")
        if not points:
            return
        if kind == "POINT":
            x, y = self._places(graphic, "GraphicAnnotationUnits", points[:1])[0]
            self._draw.rectangle((x - _DOT, y - _DOT, x + _DOT, y + _DOT), fill=self._level)
            return
        places = self._places(graphic, "GraphicAnnotationUnits", _outline(kind, points))
        if text(graphic, "GraphicFilled") == "Y" and len(places) > 2:
            self._draw.polygon(places, fill=self._level)
        elif len(places) > 1:
            self._draw.line(places, fill=self._level, width=1)

    def words(self, words: Dataset) -> None:
        """Text in its bounding box, or beside its anchor point, with a line to the anchor when that is to be seen."""
        corners = [numbers(words, f"BoundingBox{corner}HandCorner") for corner in ("TopLeft", "BottomRight")]
        anchor = numbers(words, "AnchorPoint")
        start: Point | None = None
        if all(len(corner) == 2 for corner in corners):
            box = self._places(words, "BoundingBoxAnnotationUnits", [(one[0], one[1]) for one in corners])
            start = min(x for x, _ in box), min(y for _, y in box)
        if len(anchor) == 2:
            (end,) = self._places(words, "AnchorPointAnnotationUnits", [(anchor[0], anchor[1])])
            if start is not None and text(words, "AnchorPointVisibility") == "Y":
                self._draw.line([start, end], fill=self._level, width=1)
            start = start or end
        if start is not None:
            # The font has Latin letters; text runs from left to right however the image is turned.
            shown = str(words.get("UnformattedTextValue") or "").replace("\r\n", "\n").replace("\r", "\n")
            self._draw.multiline_text(
                start, shown, fill=self._level, font=self._font, stroke_width=1, stroke_fill=self._edge
            )

    def _places(self, item: Dataset, units: str, points: Sequence[Point]) -> list[Point]:
        pixels = text(item, units) != "DISPLAY"
        place: Callable[[float, float], Point] = self._placement.of_pixel if pixels else self._placement.of_display
        return [(_near(x), _near(y)) for x, y in (place(*point) for point in points)]

    def _gray(self, level: int) -> Level:
        return (level, level, level) if self._coloured else level


def _near(coordinate: float) -> float:
    """The coordinate, or one that is as far outside: Pillow counts in whole numbers of 32 bits."""
    return min(max(coordinate, -_FAR), _FAR)


def _outline(kind: str, points: Sequence[Point]) -> list[Point]:
    if kind == "CIRCLE" and len(points) >= 2:
        (x, y), radius = points[0], math.dist(points[0], points[1])
        return _ellipse((x, y), (radius, 0.0), (0.0, radius))
    if kind == "ELLIPSE" and len(points) >= 4:
        first, second, third, fourth = points[:4]
        center = (first[0] + second[0]) / 2, (first[1] + second[1]) / 2
        return _ellipse(center, _half(first, second), _half(third, fourth))
    return _curve(points) if kind == "INTERPOLATED" else list(points)


def _half(one: Point, other: Point) -> Point:
    return (other[0] - one[0]) / 2, (other[1] - one[1]) / 2


def _ellipse(center: Point, major: Point, minor: Point) -> list[Point]:
    turns = [2 * math.pi * step / _STEPS for step in range(_STEPS + 1)]
    return [
        (
            center[0] + math.cos(turn) * major[0] + math.sin(turn) * minor[0],
            center[1] + math.cos(turn) * major[1] + math.sin(turn) * minor[1],
        )
        for turn in turns
    ]


def _curve(points: Sequence[Point]) -> list[Point]:
    """Through every point (a Catmull-Rom spline); the Standard leaves the interpolation open."""
    closed = len(points) > 3 and points[0] == points[-1]
    before, behind = (points[-2], points[1]) if closed else (points[0], points[-1])
    knots = [before, *points, behind]
    parts = [step / _CURVE_STEPS for step in range(1, _CURVE_STEPS + 1)]
    between = [_between(knots[index : index + 4], part) for index in range(len(points) - 1) for part in parts]
    return [points[0], *between]


def _between(knots: Sequence[Point], t: float) -> Point:
    weights = (
        -0.5 * t**3 + t**2 - 0.5 * t,
        1.5 * t**3 - 2.5 * t**2 + 1,
        -1.5 * t**3 + 2 * t**2 + 0.5 * t,
        0.5 * t**3 - 0.5 * t**2,
    )
    x = sum(weight * knot[0] for weight, knot in zip(weights, knots, strict=True))
    y = sum(weight * knot[1] for weight, knot in zip(weights, knots, strict=True))
    return x, y

"""Parameters of WADO-URI requests (PS3.18 section 9.1.2), read and checked.

Names are looked up as the Standard spells them. A parameter that is unknown to the Standard is ignored, as it says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast, get_args

from imaging_services.adapters.rendering.presentation import Annotation, Presentation, Region, Viewport, Window
from imaging_services.apps.dicomweb_ingestion.rendered_parameters import decimal, quality, side, utf_8_only, window_of
from imaging_services.domain.dicom.transfer_syntaxes import EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from imaging_services.domain.dicom.uids import is_uid
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.query import Scope

IMAGE_ONLY = (
    "annotation",
    "imageAnnotation",
    "rows",
    "columns",
    "region",
    "windowCenter",
    "windowWidth",
    "imageQuality",
    "frameNumber",
    "presentationUID",
    "presentationSeriesUID",
)
"""Not together with ``application/dicom`` (PS3.18 section 9.1.2.4)."""

_IMAGE_OF_STATE = ("windowCenter", "windowWidth")
"""Not together with a presentation state, which has windows of its own."""
_NEVER = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
"""Transfer syntaxes that section 9.1.2.3.2 rules out."""


@dataclass(frozen=True, slots=True)
class UriRequest:
    """One request; ``frame`` is None for all of them, ``transfer_syntax`` None for the one stored. ``state``: the
    presentation state to be applied."""

    scope: Scope
    content_type: str | None
    presentation: Presentation
    frame: int | None
    transfer_syntax: str | None
    image_only: tuple[str, ...]
    anonymize: bool
    state: Scope | None


def uri_request(parameters: Mapping[str, str], provider: str) -> UriRequest:
    """Read everything. Raises ``InvalidInput`` that names the parameter."""
    if parameters.get("requestType") != "WADO":
        raise InvalidInput("requestType is missing or is not WADO")
    scope = Scope(_uid(parameters, "studyUID"), _uid(parameters, "seriesUID"), _uid(parameters, "objectUID"), provider)
    utf_8_only(parameters.get("charset"))
    return UriRequest(
        scope,
        parameters.get("contentType"),
        uri_presentation(parameters),
        _frame(parameters.get("frameNumber")),
        _transfer_syntax(parameters.get("transferSyntax")),
        tuple(name for name in IMAGE_ONLY if name in parameters),
        _anonymize(parameters.get("anonymize")),
        _state(parameters, scope),
    )


def uri_presentation(parameters: Mapping[str, str]) -> Presentation:
    """How an image is to be shown. Raises ``InvalidInput`` that names the parameter."""
    rows, columns = parameters.get("rows"), parameters.get("columns")
    return Presentation(
        window=_window(parameters.get("windowCenter"), parameters.get("windowWidth")),
        viewport=Viewport(
            None if columns is None else side("columns", columns),
            None if rows is None else side("rows", rows),
            _region(parameters.get("region")),
        ),
        annotations=_annotations(parameters.get("annotation") or parameters.get("imageAnnotation")),
        quality=quality("imageQuality", parameters.get("imageQuality")),
    )


def _uid(parameters: Mapping[str, str], name: str) -> str:
    value = parameters.get(name, "")
    if not is_uid(value):
        raise InvalidInput(f"{name} is missing or is not a UID: up to 64 digits and dots")
    return value


def _window(center: str | None, width: str | None) -> Window | None:
    if center is None and width is None:
        return None
    if center is None or width is None:
        raise InvalidInput("windowCenter and windowWidth come together")
    decimal("windowCenter", center)
    return window_of("windowWidth", center, width)


def _region(value: str | None) -> Region:
    if value is None:
        return Region()
    corners = [decimal("region", part) for part in value.split(",")]
    if len(corners) != 4 or not (0 <= corners[0] < corners[2] <= 1 and 0 <= corners[1] < corners[3] <= 1):
        raise InvalidInput("region is left,top,right,bottom, each from 0.0 to 1.0")
    left, top, right, bottom = corners
    return Region(left, top, right, bottom, relative=True)


def _annotations(value: str | None) -> frozenset[Annotation]:
    words = {word.strip() for word in value.split(",")} if value else set()
    if not words <= set(get_args(Annotation)):
        raise InvalidInput("annotation is patient, technique or both, separated by a comma")
    return frozenset(cast("set[Annotation]", words))


def _frame(value: str | None) -> int | None:
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 9 or int(value) < 1:
        raise InvalidInput("frameNumber is a whole number from 1")
    return int(value)


def _anonymize(value: str | None) -> bool:
    if value not in (None, "yes"):
        raise InvalidInput("anonymize is yes, or left out (PS3.18 section 9.4.1.2.1)")
    return value == "yes"


def _state(parameters: Mapping[str, str], image: Scope) -> Scope | None:
    """A presentation state is of the study of the images that it is about (PS3.3 section A.33)."""
    if "presentationUID" not in parameters and "presentationSeriesUID" not in parameters:
        return None
    series, instance = _uid(parameters, "presentationSeriesUID"), _uid(parameters, "presentationUID")
    for name in _IMAGE_OF_STATE:
        if name in parameters:
            raise InvalidInput(f"{name} does not go together with presentationUID")
    return Scope(image.study_instance_uid, series, instance, image.provider)


def _transfer_syntax(value: str | None) -> str | None:
    if value is None:
        return None
    if not is_uid(value) or value in _NEVER:
        raise InvalidInput("transferSyntax is a transfer syntax UID, neither Implicit VR nor Big Endian")
    return value

"""Rendered resources and thumbnails."""

from imaging_services.apps.dicomweb_ingestion.description.model import (
    ACCEPT,
    IF_NONE_MATCH,
    RETRIEVAL,
    VALIDATORS,
    Operation,
    Parameter,
)
from imaging_services.apps.dicomweb_ingestion.description.retrieve import INSTANCE, LEVELS
from imaging_services.domain.dicom.media_types import MULTIPART

_IMAGES = ("image/jpeg", "image/png", "image/gif")
_OTHERS = ("text/html", "text/plain", "application/pdf", "video/mp4", "video/mpeg")
_PARTS = f'{MULTIPART}; type="image/*"'
_CHARSET = Parameter("charset", "character set of text; only utf-8 is available (PS3.18 section 8.3.3.2)")
_VIEWPORT = Parameter("viewport", "vw,vh[,sx,sy,sw,sh]: scaled to fit, of a region (PS3.18 section 8.3.5.1.3)")
_RENDERING = (
    ACCEPT,
    Parameter("annotation", "patient, technique: burned into the image (PS3.18 section 8.3.5.1.1)"),
    _CHARSET,
    Parameter(
        "quality",
        "of lossy compression (PS3.18 section 8.3.5.1.2)",
        {"type": "integer", "minimum": 1, "maximum": 100},
    ),
    _VIEWPORT,
    Parameter("window", "center,width,function; linear, linear-exact or sigmoid (PS3.18 section 8.3.5.1.4)"),
    Parameter(
        "iccprofile",
        "whether the image holds a profile (PS3.18 section 8.3.5.1.5)",
        {"type": "string", "enum": ["no", "yes"]},
    ),
    IF_NONE_MATCH,
)
_ALL_LEVELS = {**LEVELS, "Frames": f"{INSTANCE}/frames/{{frames}}"}


def _rendered(level: str) -> Operation:
    of_one = {"Instance": (*_IMAGES, *_OTHERS, _PARTS), "Frames": (*_IMAGES, _PARTS)}
    types = of_one.get(level, (*_IMAGES, *_OTHERS, f'{MULTIPART}; type="*/*"'))
    return Operation(
        f"RetrieveRendered{level}",
        f"Retrieve what people look at of the {level.lower()}: images, reports, documents",
        "PS3.18 section 10.4.1.1.3",
        answers={200: types, 304: (), **({} if level in of_one else {206: types})},
        refusals=RETRIEVAL,
        parameters=_RENDERING,
        headers=(*VALIDATORS, "Warning"),
    )


def _thumbnail(level: str) -> Operation:
    return Operation(
        f"RetrieveThumbnail{level}",
        f"Retrieve one small image of the {level.lower()}",
        "PS3.18 section 10.4.1.1.4",
        answers={200: _IMAGES, 304: ()},
        refusals=RETRIEVAL,
        parameters=(ACCEPT, _CHARSET, Parameter("viewport", "vw,vh: the largest size"), IF_NONE_MATCH),
        headers=VALIDATORS,
    )


OPERATIONS = {
    **{("GET", f"{path}/rendered"): _rendered(level) for level, path in _ALL_LEVELS.items()},
    **{("GET", f"{path}/thumbnail"): _thumbnail(level) for level, path in _ALL_LEVELS.items()},
}

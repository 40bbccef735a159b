"""Which instance stands for a study or series (PS3.18 section 10.4.1.1.4 leaves it to the origin server)."""

from collections.abc import Iterator, Sequence

from imaging_services.apps.dicomweb_ingestion.rendered_cache import Sources
from imaging_services.apps.dicomweb_ingestion.rendered_sources import ImageSource
from imaging_services.domain.errors import NotFound, PermanentError
from imaging_services.domain.manifest.query import InstanceLocation

_TRIED = 8
"""Instances that are opened at most, when one after the other has no image."""

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_WITHOUT_IMAGE = tuple(
    _STORAGE + group for group in ("9.", "11.", "66.1", "66.2", "66.3", "66.5", "66.6", "67", "88.", "104.", "481.")
)
_WITH_IMAGE = (_STORAGE + "481.1", _STORAGE + "481.2")
"""RT Image and RT Dose, among the other objects of radiotherapy."""


async def representative(sources: Sources, locations: Sequence[InstanceLocation]) -> ImageSource:
    """The middle image of the first series that has one. Raises ``NotFound`` when there is none."""
    reason = ""
    for tried, location in enumerate(_candidates(locations)):
        if tried == _TRIED:
            break
        try:
            return await sources.image(location)
        except PermanentError as error:
            reason = f": {error}"
    raise NotFound(f"there is no image to make a thumbnail of{reason}")


def _candidates(locations: Sequence[InstanceLocation]) -> Iterator[InstanceLocation]:
    """One of each series first, then the others."""
    series: dict[str, list[InstanceLocation]] = {}
    for location in locations:
        if _may_have_image(location.sop_class_uid):
            series.setdefault(location.series_instance_uid, []).append(location)
    chosen = [instances.pop(len(instances) // 2) for instances in series.values()]
    yield from chosen
    for instances in series.values():
        yield from instances


def _may_have_image(sop_class_uid: str) -> bool:
    return sop_class_uid in _WITH_IMAGE or not sop_class_uid.startswith(_WITHOUT_IMAGE)

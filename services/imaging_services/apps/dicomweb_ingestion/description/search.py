"""QIDO-RS: parameters follow from what the manifest records."""

from imaging_services.apps.dicomweb_ingestion.description.model import (
    ACCEPT,
    DOCUMENTS,
    FLAG,
    WHOLE,
    Operation,
    Parameter,
)
from imaging_services.domain.manifest.attributes import ATTRIBUTES, MATCHED_TAGS
from imaging_services.domain.manifest.query import Level

_SECTION = "PS3.18 section 10.6"
_CONTROLS = (
    Parameter("limit", "most results of this answer", WHOLE),
    Parameter("offset", "results to skip", WHOLE),
    Parameter("includefield", "attributes to return beside the usual ones: keywords, tags, or all", repeats=True),
    Parameter("fuzzymatching", "match the beginnings of the parts of a person's name", FLAG),
    Parameter("emptyvaluematching", "two double quotes as a value find what has none", FLAG),
    Parameter("multiplevaluematching", "of several values all have to be there, not one of them", FLAG),
    ACCEPT,
)
_TITLES = {Level.STUDY: "studies", Level.SERIES: "series", Level.IMAGE: "instances"}
_PATHS = {
    "/studies": ("SearchForStudies", Level.STUDY),
    "/series": ("SearchForSeries", Level.SERIES),
    "/instances": ("SearchForInstances", Level.IMAGE),
    "/studies/{study}/series": ("SearchForStudySeries", Level.SERIES),
    "/studies/{study}/instances": ("SearchForStudyInstances", Level.IMAGE),
    "/studies/{study}/series/{series}/instances": ("SearchForStudySeriesInstances", Level.IMAGE),
}


def _keys() -> tuple[Parameter, ...]:
    """One parameter for each attribute that can be matched, by its keyword; at every level they are the same."""
    rows = sorted((ATTRIBUTES[tag] for tag in MATCHED_TAGS), key=lambda row: row.keyword)
    return tuple(Parameter(row.keyword, f"matching key ({row.tag}), {row.vr}", repeats=True) for row in rows)


def _search(name: str, path: str, level: Level) -> Operation:
    within = "" if "{" not in path else " of one series" if "{series}" in path else " of one study"
    return Operation(
        name,
        f"Search for {_TITLES[level]}{within}",
        _SECTION,
        answers={200: DOCUMENTS},
        refusals=(400, 406),
        parameters=(*_CONTROLS, *_keys()),
        headers=("Warning", "Cache-Control"),
    )


OPERATIONS = {("GET", path): _search(name, path, level) for path, (name, level) in _PATHS.items()}

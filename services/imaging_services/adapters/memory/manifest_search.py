"""Searches of the in-memory manifest: its records in the order of results, and how they match."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from imaging_services.adapters.memory.manifest_records import (
    MemorySeries,
    MemoryStudy,
    instance_record,
    series_record,
    study_record,
)
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.attributes import UNIQUE_KEYS
from imaging_services.domain.manifest.header_elements import Attributes
from imaging_services.domain.manifest.matching import Condition, matches_all, split_by_level
from imaging_services.domain.manifest.query import Level, Query


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """A study, series or instance with the attributes of the levels above, and the series it has or belongs to."""

    attributes: Attributes
    series: tuple[MemorySeries, ...]

    def matches(self, conditions: Iterable[Condition], level: Level) -> bool:
        """Whether it passes all conditions, those on lower levels by one and the same series or instance."""
        above, below = split_by_level(conditions, level)
        if not matches_all(above, self.attributes):
            return False
        instances = level is Level.SERIES or any(one.level is Level.IMAGE for one in below)
        return not below or any(matches_all(below, lower) for lower in self._below(instances=instances))

    def _below(self, *, instances: bool) -> Iterator[Attributes]:
        for series in self.series:
            of_series = self.attributes | series_record(series)
            if instances:
                yield from (of_series | instance_record(one) for one in series.in_order())
            else:
                yield of_series


def study_records(study: MemoryStudy, provider: str | None, level: Level) -> Iterator[SearchRecord]:
    """What the provider (None: any) has of a study, in the order of results."""
    members = tuple(study.in_order(provider))
    if not members:
        return
    of_study = study_record(study, members)
    if level is Level.STUDY:
        yield SearchRecord(of_study, members)
        return
    for series in members:
        of_series = of_study | series_record(series)
        if level is Level.SERIES:
            yield SearchRecord(of_series, (series,))
        else:
            yield from (SearchRecord(of_series | instance_record(one), (series,)) for one in series.in_order())


def behind(records: Iterable[SearchRecord], query: Query) -> Iterator[SearchRecord]:
    """The records behind ``query.after``."""
    remaining = iter(records)
    if query.after is not None:
        keys = UNIQUE_KEYS[query.level]
        if not any(tuple(one.attributes[key][0] for key in keys) == query.after for one in remaining):
            raise InvalidInput("the result to go on behind is not there any longer")
    return remaining

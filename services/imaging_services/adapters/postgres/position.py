"""Going on behind a result (keyset paging): its place in the order of results, and what comes after it."""

from collections.abc import Callable, Sequence
from typing import Any

from imaging_services.adapters.postgres.pool import Connection
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.query import Level, Query

Position = Sequence[int | None]
"""The values of the result in the columns of ``_ORDER``."""

_ORDER = {
    Level.STUDY: ("st.id",),
    Level.SERIES: ("se.study_id", "se.number", "se.id"),
    Level.IMAGE: ("se.study_id", "se.number", "se.id", "i.number", "i.id"),
}
_BACKWARDS = frozenset({"st.id", "se.study_id"})
_STUDY = "SELECT id FROM dicom_study WHERE study_instance_uid = %s"
_SERIES = (
    "SELECT se.study_id, se.number, se.id FROM dicom_study st JOIN dicom_series se ON se.study_id = st.id"
    " WHERE st.study_instance_uid = %s AND se.series_instance_uid = %s"
)
_IMAGE = (
    "SELECT se.study_id, se.number, se.id, i.number, i.id"
    " FROM dicom_study st JOIN dicom_series se ON se.study_id = st.id JOIN dicom_instance i ON i.series_id = se.id"
    " WHERE st.study_instance_uid = %s AND se.series_instance_uid = %s AND i.sop_instance_uid = %s"
)
_LOOKUPS = {Level.STUDY: _STUDY, Level.SERIES: _SERIES, Level.IMAGE: _IMAGE}


async def position_of(connection: Connection, query: Query) -> Position | None:
    """Where ``query.after`` is. Raises ``InvalidInput`` when it is not there any longer."""
    if query.after is None:
        return None
    cursor = await connection.execute(_LOOKUPS[query.level].encode(), query.after)
    found = await cursor.fetchone()
    if found is None:
        raise InvalidInput("the result to go on behind is not there any longer")
    return found


def behind(bind: Callable[[Any], str], level: Level, position: Position) -> str:
    """The condition of what comes after the position."""
    columns = _ORDER[level]
    terms = _later(bind, list(zip(columns, position, strict=True)))
    return f"({columns[0]} <= {bind(position[0])} AND {terms})"  # the first part is for the index


def _later(bind: Callable[[Any], str], places: list[tuple[str, int | None]]) -> str:
    (column, value), *rest = places
    if value is None:  # those without a number come last
        return f"({column} IS NULL AND {_later(bind, rest)})"
    place = bind(value)
    later = f"{column} < {place}" if column in _BACKWARDS else f"({column} > {place} OR {column} IS NULL)"
    return f"({later} OR ({column} = {place} AND {_later(bind, rest)}))" if rest else f"({later})"

"""Searches: a page of matching records first, then what each of them returns, so that the price of a query follows
the size of its answer.

Order: patients by PatientID; studies newest first (in the order in which they were first recorded, backwards); within
a study series by number, within a series instances by number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.rows import dict_row

from imaging_services.adapters.postgres.conditions import Conditions
from imaging_services.adapters.postgres.pool import Connection
from imaging_services.adapters.postgres.position import Position, behind, position_of
from imaging_services.domain.manifest import attributes as known
from imaging_services.domain.manifest.attributes import SEQUENCE_TAGS
from imaging_services.domain.manifest.items import item_text
from imaging_services.domain.manifest.matching import parse_filters
from imaging_services.domain.manifest.paging import require_page
from imaging_services.domain.manifest.query import DicomJson, Level, Query
from imaging_services.domain.manifest.results import dicom_json, returned_tags

_JOINS = {
    Level.PATIENT: "dicom_study st",
    Level.STUDY: "dicom_study st",
    Level.SERIES: "dicom_series se JOIN dicom_study st ON st.id = se.study_id",
    Level.IMAGE: "dicom_instance i JOIN dicom_series se ON se.id = i.series_id"
    " JOIN dicom_study st ON st.id = se.study_id",
}
_STUDY = "st.id AS study, st.study_instance_uid, st.attributes AS study_attributes"
_SERIES = (
    f"{_STUDY}, se.id AS series, se.series_instance_uid, se.number AS series_number,"
    " se.attributes AS series_attributes, se.number_of_instances"
)
_PATIENT_KEY = "st.patient_id, CASE WHEN st.patient_id IS NULL THEN st.patient_name END"
_COLUMNS = {
    Level.PATIENT: f"DISTINCT ON ({_PATIENT_KEY}) {_STUDY}, st.patient_id, st.patient_name",
    Level.STUDY: _STUDY,
    Level.SERIES: _SERIES,
    Level.IMAGE: f"{_SERIES}, i.id AS instance, i.sop_instance_uid, i.sop_class_uid, i.transfer_syntax_uid,"
    " i.number AS instance_number, i.attributes AS instance_attributes, i.missing_since IS NOT NULL AS missing",
}
_PAGE_ORDER = {
    Level.PATIENT: f"{_PATIENT_KEY}, st.id DESC",
    Level.STUDY: "st.id DESC",
    Level.SERIES: "se.study_id DESC, se.number, se.id",
    Level.IMAGE: "se.study_id DESC, se.number, se.id, i.number, i.id",
}
_ORDER = {
    Level.PATIENT: "page.patient_id, page.patient_name, page.study DESC",
    Level.STUDY: "page.study DESC",
    Level.SERIES: "page.study DESC, page.series_number, page.series",
    Level.IMAGE: "page.study DESC, page.series_number, page.series, page.instance_number, page.instance",
}
_STUDY_TOTALS = {
    known.STUDY_SERIES: "(SELECT sum(sp.number_of_series) {of_study})",
    known.STUDY_INSTANCES: "(SELECT sum(sp.number_of_instances) {of_study})",
    known.MODALITIES_IN_STUDY: "ARRAY(SELECT DISTINCT m FROM {rows}, unnest(sp.modalities) AS m {where} ORDER BY m)",
    known.SOP_CLASSES_IN_STUDY: "ARRAY(SELECT DISTINCT u FROM {rows}, unnest(sp.sop_class_uids) u {where} ORDER BY u)",
}
_PATIENT_TOTALS = {
    known.PATIENT_STUDIES: "count(DISTINCT sp.study_id)",
    known.PATIENT_SERIES: "sum(sp.number_of_series)",
    known.PATIENT_INSTANCES: "sum(sp.number_of_instances)",
}


async def search(connection: Connection, query: Query) -> list[DicomJson]:
    """Run a query. Raises ``InvalidInput`` for a bad matching value, limit or offset, and when the result to go on
    behind is not there any longer."""
    require_page(query)
    text, parameters = search_sql(query, await position_of(connection, query))
    cursor = connection.cursor(row_factory=dict_row)
    await cursor.execute(text.encode(), parameters)
    tags = returned_tags(query)
    return [dicom_json(_recorded(row), tags) for row in await cursor.fetchall()]


def search_sql(query: Query, position: Position | None = None) -> tuple[str, dict[str, Any]]:
    """The statement and its parameters; ``position`` is that of the result to go on behind."""
    require_page(query)
    conditions = Conditions(query.provider)
    _add_scope(conditions, query)
    conditions.add_all(parse_filters(query), query.level)
    if position is not None:
        conditions.add(behind(conditions.bind, query.level, position))
    page = _select(_COLUMNS[query.level], _JOINS[query.level], conditions.sql, _PAGE_ORDER[query.level])
    if query.limit is not None:
        page += f" LIMIT {conditions.bind(min(query.limit, 2**62))}"
    if query.offset:
        page += f" OFFSET {conditions.bind(query.offset)}"
    columns = ", ".join(["page.*", *_totals(conditions, query)])
    return _select(columns, f"({page}) AS page", "true", _ORDER[query.level]), conditions.parameters


def _select(columns: str, tables: str, condition: str, order: str) -> str:
    # Only fixed text of this package comes in here; every value of a request is a parameter.
    return " ".join(["SELECT", columns, "FROM", tables, "WHERE", condition, "ORDER BY", order])


def _add_scope(conditions: Conditions, query: Query) -> None:
    """The one place where a search is limited to a provider, and to studies that hold something."""
    scope = f" AND sp.provider = {conditions.bind(query.provider)}" if query.provider is not None else ""
    if query.level in (Level.PATIENT, Level.STUDY):
        conditions.add(f"EXISTS (SELECT FROM dicom_study_provider sp WHERE sp.study_id = st.id{scope})")
    elif query.provider is not None:
        conditions.add(f"se.provider = {conditions.bind(query.provider)}")


def _totals(conditions: Conditions, query: Query) -> list[str]:
    """What is counted for each record of the page, of the provider asked only."""
    tags = returned_tags(query)
    scope = f" AND sp.provider = {conditions.bind(query.provider)}" if query.provider is not None else ""
    where = f"WHERE sp.study_id = page.study{scope}"
    rows = "dicom_study_provider sp"
    totals = [
        f'{sql.format(rows=rows, where=where, of_study=f"FROM {rows} {where}")} AS "{tag}"'
        for tag, sql in _STUDY_TOTALS.items()
        if tag in tags
    ]
    of_patient = (
        f"FROM {rows} JOIN dicom_study st ON st.id = sp.study_id"
        f" WHERE st.patient_id = (page.study_attributes -> '{known.PATIENT_ID}' ->> 0){scope}"
    )
    totals += [f'(SELECT {sql} {of_patient}) AS "{tag}"' for tag, sql in _PATIENT_TOTALS.items() if tag in tags]
    return totals


def _recorded(row: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """A row's attributes of all levels as recorded text."""
    recorded: dict[str, Sequence[str]] = dict(row["study_attributes"])
    recorded[known.STUDY_INSTANCE_UID] = [row["study_instance_uid"]]
    recorded[known.INSTANCE_AVAILABILITY] = ["ONLINE"]
    if "series" in row:
        recorded |= row["series_attributes"]
        recorded[known.SERIES_INSTANCE_UID] = [row["series_instance_uid"]]
        recorded[known.SERIES_INSTANCES] = [str(row["number_of_instances"])]
    if "instance" in row:
        recorded |= row["instance_attributes"]
        recorded[known.SOP_INSTANCE_UID] = [row["sop_instance_uid"]]
        recorded[known.SOP_CLASS_UID] = [row["sop_class_uid"]]
        recorded[known.TRANSFER_SYNTAX_UID] = [row["transfer_syntax_uid"]]
        recorded[known.AVAILABLE_TRANSFER_SYNTAX_UID] = [row["transfer_syntax_uid"]]
        if row["missing"]:
            recorded[known.INSTANCE_AVAILABILITY] = ["UNAVAILABLE"]  # PS3.3 section C.4.23.1.1
    for tag in SEQUENCE_TAGS & recorded.keys():
        recorded[tag] = [item_text(item) for item in recorded[tag]]  # type: ignore[arg-type]
    for tag in (*_STUDY_TOTALS, *_PATIENT_TOTALS):
        if row.get(tag) is not None:
            recorded[tag] = row[tag] if isinstance(row[tag], list) else [str(row[tag])]
    return recorded

"""The price of a query follows its answer: at twenty thousand studies the main searches read no table whole."""

import json
from typing import Any

import pytest

from imaging_services.adapters.postgres.manifest import PostgresManifest
from imaging_services.adapters.postgres.position import position_of
from imaging_services.adapters.postgres.search import search_sql
from imaging_services.domain.manifest.attributes import default_tags
from imaging_services.domain.manifest.query import Level, Query
from support.manifest_events import stored
from support.manifests import migrated_pool

STUDIES = 20_000
PAGE = {"provider": "north", "limit": 100}
SEARCHES = {
    "the newest studies": Query(Level.STUDY, **PAGE),
    "one study": Query(Level.STUDY, filters={"0020000D": ("1.2.777",)}, **PAGE),
    "a list of studies": Query(Level.STUDY, filters={"0020000D": ("1.2.777", "1.2.778")}, **PAGE),
    "a patient": Query(Level.STUDY, filters={"00100020": ("P777",)}, **PAGE),
    "a name": Query(Level.STUDY, filters={"00100010": ("Name777^Given",)}, **PAGE),
    "the beginning of a name": Query(Level.STUDY, filters={"00100010": ("name777*",)}, **PAGE),
    "a name, fuzzy": Query(Level.STUDY, filters={"00100010": ("given name777",)}, fuzzy=True, **PAGE),
    "an accession number": Query(Level.STUDY, filters={"00080050": ("A777",)}, **PAGE),
    "a day": Query(Level.STUDY, filters={"00080020": ("20100101",)}, **PAGE),
    "a month, one modality": Query(
        Level.STUDY, filters={"00080020": ("20100101-20100131",), "00080061": ("MR",)}, **PAGE
    ),
    "another attribute": Query(Level.STUDY, filters={"00081030": ("Description 777",)}, **PAGE),
    "the studies behind another": Query(Level.STUDY, after=("1.2.777",), **PAGE),
    "a day in another time zone": Query(
        Level.STUDY, filters={"00080020": ("20100101",), "00080201": ("+0900",)}, combined=True, **PAGE
    ),
    "the study of a scheduled procedure step": Query(
        Level.STUDY, filters={"00400275.00400009": ("S777",), "00400275.00401001": ("R777",)}, **PAGE
    ),
    "the study of an instance": Query(Level.STUDY, filters={"00080018": ("1.2.777.1.1",)}, **PAGE),
    "studies with such a series": Query(Level.STUDY, filters={"00080060": ("MR",)}, **PAGE),
    "the series behind another": Query(Level.SERIES, after=("1.2.777", "1.2.777.1"), **PAGE),
    "the series of a scheduled procedure step": Query(Level.SERIES, filters={"00400275.00400009": ("S777",)}, **PAGE),
    "the series of a study": Query(Level.SERIES, filters={"0020000D": ("1.2.777",)}, **PAGE),
    "the newest series": Query(Level.SERIES, **PAGE),
    "one series": Query(Level.SERIES, filters={"0020000E": ("1.2.777.1",)}, **PAGE),
    "the instances of a series": Query(
        Level.IMAGE, filters={"0020000D": ("1.2.777",), "0020000E": ("1.2.777.1",)}, **PAGE
    ),
    "one instance": Query(Level.IMAGE, filters={"00080018": ("1.2.777.1.1",)}, **PAGE),
    "the newest instances": Query(Level.IMAGE, **PAGE),
    "the newest instances with their studies": Query(Level.IMAGE, include=default_tags(Level.STUDY), **PAGE),
    "the instances behind another": Query(Level.IMAGE, after=("1.2.777", "1.2.777.1", "1.2.777.1.1"), **PAGE),
    "a patient, by patient": Query(Level.PATIENT, filters={"00100020": ("P777",)}, **PAGE),
    "the first patients": Query(Level.PATIENT, **PAGE),
}


def header(number: int) -> dict[str, Any]:
    return {
        "00100010": f"Name{number}^Given",
        "00100020": f"P{number}",
        "00080050": f"A{number}",
        "00080020": f"{2000 + number % 25}{1 + number // 25 % 12:02}{1 + number // 300 % 28:02}",
        "00081030": f"Description {number}",
        "00080060": ["CT", "MR", "US"][number % 3],
        "00400275": [{"00400009": f"S{number}", "00401001": f"R{number}"}],
    }


@pytest.mark.timeout(300)
async def test_the_main_searches_use_indexes(database):
    async with migrated_pool(database) as pool:
        manifest = PostgresManifest(pool, "edi")
        for start in range(0, STUDIES, 1000):
            events = [
                stored(f"1.2.{number}", f"1.2.{number}.1", f"1.2.{number}.1.1", attributes=header(number))
                for number in range(start, start + 1000)
            ]
            assert not any(await manifest.record(events))
        async with pool.connection() as connection:
            await connection.execute("VACUUM ANALYZE")
            for name, query in SEARCHES.items():
                text, parameters = search_sql(query, await position_of(connection, query))
                explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {text}".encode()
                (plan,) = await (await connection.execute(explain, parameters)).fetchone()
                assert await manifest.search(query), name
                assert touched(plan[0]["Plan"]) < 3000, f"{name}: {json.dumps(plan, indent=1)}"
                assert plan[0]["Execution Time"] < 100, f"{name}: {json.dumps(plan, indent=1)}"


def touched(plan: dict) -> float:
    """Rows read from tables, those that a filter then took away too."""
    own = 0.0
    if "Relation Name" in plan:
        own = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return own + sum(touched(child) for child in plan.get("Plans", []))

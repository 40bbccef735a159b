"""Searches with any parameters against PostgreSQL: answered, or refused by name before the database sees them."""

import asyncio
import contextlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from imaging_services.adapters.postgres.manifest import PostgresManifest
from imaging_services.apps.dicomweb_ingestion.search_parameters import parse_search
from imaging_services.domain.errors import InvalidInput
from imaging_services.domain.manifest.attributes import ATTRIBUTES, MATCHED_TAGS
from imaging_services.domain.manifest.query import Level
from support.fuzzing import fuzzed
from support.manifest_events import stored
from support.manifests import migrated_pool

KEYWORDS = sorted(ATTRIBUTES[tag].keyword for tag in MATCHED_TAGS)
VALUES = (
    st.sampled_from(
        ["", "*", "?", '""', "\0", "a\0b", "\\", "%", "_", "20261121-", "-1030", "1e400", "NaN", "1.2", "١٢"]
    )
    | st.text(max_size=12)
    | st.text("0123456789-+.:*?\\,^= ", max_size=16)
)
PARAMETERS = st.lists(
    st.tuples(st.sampled_from(KEYWORDS), VALUES)
    | st.tuples(st.sampled_from(["fuzzymatching", "emptyvaluematching", "multiplevaluematching"]), st.just("true"))
    | st.tuples(st.just("includefield"), st.sampled_from(["all", *KEYWORDS]))
    | st.tuples(st.just("offset"), st.sampled_from(["0", "1", "999999999"])),
    max_size=4,
)


def test_searches_are_answered_or_refused(database: Any) -> None:
    with asyncio.Runner() as runner:
        opened = migrated_pool(database)
        manifest = PostgresManifest(runner.run(opened.__aenter__()), "processor.test")
        event = stored("1.2", "1.2.3", "1.2.3.4", attributes={"00100010": "Doe^Jane", "00080020": "20261121"})
        assert runner.run(manifest.record([event])) == [None]

        @fuzzed(40)
        @given(st.sampled_from([Level.STUDY, Level.SERIES, Level.IMAGE]), PARAMETERS)
        def asked(level: Level, parameters: list[tuple[str, str]]) -> None:
            with contextlib.suppress(InvalidInput):
                search = parse_search(level, "north", {}, parameters, default_limit=10, max_limit=100)
                assert len(runner.run(manifest.search(search.query))) <= 1

        try:
            asked()
        finally:
            runner.run(opened.__aexit__(None, None, None))

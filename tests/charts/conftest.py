"""Helm is built before the clock of the first test runs: the first time that takes minutes."""

from pathlib import Path

import pytest

from cluster.programs import programs

HERE = Path(__file__).parent


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build what is missing."""
    wanted = any(item.path == HERE / "test_chart.py" for item in session.items)
    if wanted and not session.config.option.collectonly:
        programs(["helm"])

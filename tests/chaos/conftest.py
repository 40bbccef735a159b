"""What the cases share. ``make test`` runs the short form of them, ``make chaos`` (CHAOS=long) all."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.chaos import LONG
from support.chaos_summary import Summary


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: takes minutes; left out of the short form that CI runs")
    config.addinivalue_line("markers", "root: mounts a file system")
    config.addinivalue_line("markers", "soak: a steady load for SOAK_MINUTES")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The short form leaves the long cases of this folder out, and whoever is not root those that mount disks."""
    unwanted = {name for name, wanted in (("long", LONG), ("root", os.geteuid() == 0)) if not wanted}
    here = [one for one in items if one.path.is_relative_to(Path(__file__).parent)]
    left_out = [one for one in here if any(map(one.get_closest_marker, unwanted))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [one for one in items if one not in left_out]


@pytest.fixture(scope="session")
def summary(pytestconfig: pytest.Config) -> Iterator[Summary]:
    """Of all cases; the long form writes it to build/chaos."""
    made = Summary(pytestconfig.rootpath / "build" / "chaos" if LONG else None)
    yield made
    print("\n" + made.table())

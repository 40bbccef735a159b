"""The lock files agree with pyproject.toml and with one another, and hold what they are for and no more."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEVELOPERS = ROOT / "requirements.lock"
IMAGE, TRIAL, BUILD = (ROOT / "requirements" / f"{name}.lock" for name in ("image", "trial", "build"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
CORE = PROJECT["project"]["dependencies"]
WANTED = {
    DEVELOPERS: [*CORE, *EXTRAS["local"], *EXTRAS["dev"]],
    IMAGE: [*CORE, *EXTRAS["edge"]],
    TRIAL: [*CORE, *EXTRAS["local"]],
    BUILD: PROJECT["dependency-groups"]["build"],
}
ENTRY = re.compile(r"^([A-Za-z0-9._-]+)==(\S+?)(?: ; (.+?))?( \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M)
locks = pytest.mark.parametrize("lock", WANTED, ids=lambda lock: lock.stem)


def entries(lock: Path) -> dict[str, list[tuple[str, str, str]]]:
    """Version, marker and hashes by name; more than one where the version of Python decides."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for entry in ENTRY.finditer(lock.read_text()):
        found.setdefault(str(canonicalize_name(entry[1])), []).append(entry.group(2, 3, 4))
    return found


def here(lock: Path) -> set[str]:
    """What the lock installs on this machine."""
    return {
        name
        for name, choices in entries(lock).items()
        if any(marker is None or Requirement(f"{name} ; {marker}").marker.evaluate() for _, marker, _ in choices)
    }


def closure(requirements: Iterable[str]) -> set[str]:
    """Everything that these need on this machine, as installed."""
    found: dict[str, set[str]] = {}
    waiting = [Requirement(one) for one in requirements]
    while waiting:
        one = waiting.pop()
        name = str(canonicalize_name(one.name))
        extras = {"", *one.extras} - found.get(name, set())
        if not extras or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        found.setdefault(name, set()).update(extras)
        waiting += needed(name, extras)
    return set(found) - {"imaging-ingestion"}


def needed(name: str, extras: set[str]) -> Iterator[Requirement]:
    for text in distribution(name).requires or []:
        one = Requirement(text)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras):
            yield Requirement(text.partition(";")[0])


@locks
def test_every_line_is_a_pinned_and_hashed_release(lock: Path) -> None:
    rest = ENTRY.sub("", lock.read_text())
    assert all(not line or line.lstrip().startswith("#") for line in rest.splitlines()), rest
    assert len(entries(lock)) > 5


@locks
def test_it_has_what_the_project_asks_for(lock: Path) -> None:
    pinned = entries(lock)
    for one in map(Requirement, WANTED[lock]):
        if one.name != "imaging-ingestion":
            for version, _, _ in pinned[str(canonicalize_name(one.name))]:
                assert Version(version) in one.specifier, f"{one} is locked at {version}: run 'make lock'"


@pytest.mark.parametrize("lock", [IMAGE, TRIAL], ids=lambda lock: lock.stem)
def test_an_image_gets_what_is_needed_and_no_more(lock: Path) -> None:
    assert here(lock) == closure(WANTED[lock])


@pytest.mark.parametrize("lock", [IMAGE, TRIAL, BUILD], ids=lambda lock: lock.stem)
def test_what_is_tested_is_what_is_shipped(lock: Path) -> None:
    tested = entries(DEVELOPERS)
    for name, choices in entries(lock).items():
        assert {(version, hashes) for version, _, hashes in choices} <= {one[::2] for one in tested[name]}, name


def test_the_build_stage_builds_as_pyproject_says() -> None:
    assert PROJECT["dependency-groups"]["build"] == PROJECT["build-system"]["requires"]


def test_no_place_is_named() -> None:
    for lock in WANTED:
        assert not re.search(r"index-url|find-links|https?:", lock.read_text()), lock.name

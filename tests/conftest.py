"""Servers as fixtures: started by the first test that asks, stopped at the end of the session."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

from support.azurite import Azurite, running_azurite
from support.servers import (
    S3,
    Database,
    Nats,
    Postgres,
    fresh_bucket,
    fresh_database,
    running_nats,
    running_postgres,
    running_s3,
)

HERE = Path(__file__).parent
# make test-operator, make test-cluster, make test-knative: minutes, and root
ONLY_WHEN_NAMED = (HERE / "operator", HERE / "cluster", HERE / "knative")

# The same examples in each run, however slow the machine: whoever looks for others runs make fuzz.
hypothesis.settings.register_profile("make test", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("make test")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the tests on a real cluster to those who ask for them."""
    named = [Path(config.invocation_params.dir, argument.split("::")[0]).resolve() for argument in config.args]
    if collection_path in ONLY_WHEN_NAMED and not any(path.is_relative_to(collection_path) for path in named):
        return True
    return None


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nats]:
    """NATS with JetStream, ``max_payload`` 16 MiB, every write synced."""
    with running_nats(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """PostgreSQL with a password."""
    with running_postgres(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture
def database(postgres_server: Postgres) -> Iterator[Database]:
    """A fresh, empty database."""
    with fresh_database(postgres_server) as created:
        yield created


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """S3 with credentials."""
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3) -> str:
    """The name of a fresh bucket."""
    return fresh_bucket(s3_server)


@pytest.fixture(scope="session")
def azurite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """Azure Blob with a shared key."""
    with running_azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture
def container(azurite_server: Azurite) -> str:
    """The name of a fresh container."""
    return azurite_server.create_container()


_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what was skipped; an expected failure is another thing."""
    if report.skipped and not hasattr(report, "wasxfail"):
        _remember_skip(report.nodeid, report.longrepr)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Remember modules that skipped themselves."""
    if report.skipped:
        _remember_skip(report.nodeid, report.longrepr)


def _remember_skip(name: str, representation: object) -> None:
    reason = representation[2] if isinstance(representation, tuple) else representation
    _skipped.append(f"{name} was skipped: {str(reason).removeprefix('Skipped: ')}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI everything is there that a test needs, so a skipped test is a failure."""
    if (
        os.environ.get("CI")
        and _skipped
        and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name each skipped test in CI."""
    if os.environ.get("CI") and _skipped:
        terminalreporter.section("skipped tests fail the run in CI", red=True)
        for sentence in _skipped:
            terminalreporter.line(sentence)


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """A test that runs a command in this process sets up its logging; the next one must not inherit it."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    structlog.reset_defaults()
    root.setLevel(level)
    root.handlers[:] = handlers

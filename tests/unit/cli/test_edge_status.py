"""What ``imaging edge status`` makes of two looks at the metrics."""

import pytest
from typer.testing import CliRunner

from imaging_services.cli import edge
from imaging_services.domain.errors import BackendUnavailable

PAGE = """# TYPE imaging_edge_spooled_instances counter
imaging_edge_spooled_instances_total{{worker="1"}} {one}
imaging_edge_spooled_instances_total{{worker="2"}} {two}
# TYPE imaging_edge_spooled_bytes counter
imaging_edge_spooled_bytes_total{{worker="1"}} {one}e6
imaging_edge_spooled_bytes_total{{worker="2"}} {two}e6
# TYPE imaging_edge_spool_instances gauge
imaging_edge_spool_instances{{worker="1"}} {waiting}
imaging_edge_spool_instances{{worker="2"}} {waiting}
# TYPE imaging_edge_spool_bytes gauge
imaging_edge_spool_bytes{{worker="1"}} {waiting}e6
imaging_edge_spool_bytes{{worker="2"}} {waiting}e6
# TYPE imaging_edge_spool_limit_bytes gauge
imaging_edge_spool_limit_bytes 1e9
# TYPE imaging_edge_spool_open gauge
imaging_edge_spool_open 1
# TYPE imaging_edge_hub_connected gauge
imaging_edge_hub_connected 1
# TYPE imaging_edge_spool_oldest_seconds gauge
imaging_edge_spool_oldest_seconds 75
# TYPE something_else gauge
something_else 7
"""


def page(one: int, two: int, waiting: int) -> dict[str, float]:
    return edge.edge_metrics(PAGE.format(one=one, two=two, waiting=waiting))


def test_what_came_in_and_is_not_there_went_out() -> None:
    status = edge.between(page(10, 20, 100), page(12, 22, 80), seconds=2)
    assert (status.in_instances_per_second, status.out_instances_per_second) == (2, 12)
    assert (status.in_bytes_per_second, status.out_bytes_per_second) == (2e6, 12e6)
    assert (status.instances, status.bytes, status.limit_bytes) == (80, 80_000_000, 1_000_000_000)
    assert status.drained_in_seconds == 8.0
    assert status.hub_connected
    assert status.takes_instances


@pytest.mark.parametrize(("before", "after", "drained"), [(5, 5, None), (4, 5, None), (1, 0, 0.0), (0, 0, 0.0)])
def test_the_time_until_it_is_empty_is_only_said_when_it_becomes_less(
    before: int, after: int, drained: float | None
) -> None:
    assert edge.between(page(1, 1, before), page(1, 1, after), seconds=1).drained_in_seconds == drained


def test_a_restart_between_two_looks_gives_no_negative_rates() -> None:
    status = edge.between(page(100, 100, 5), page(0, 1, 5), seconds=1)
    assert (status.in_instances_per_second, status.out_instances_per_second) == (0, 0)


def test_it_is_shown_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = iter([page(1, 1, 90), page(1, 1, 80)])
    monkeypatch.setattr(edge, "_scraped", lambda address: next(pages))
    shown = CliRunner().invoke(edge.app, ["status", "--seconds", "0.2"]).output
    assert "80 instances, 80.0 MB of 1.0 GB" in shown
    assert "1 min 15 s" in shown
    assert "nothing leaves" not in shown


def test_somebody_elses_health_port_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        edge, "http_get", lambda url, seconds: (200, b"# TYPE something_else gauge\nsomething_else 7\n")
    )
    with pytest.raises(BackendUnavailable, match="not the health port of an edge"):
        CliRunner().invoke(edge.app, ["status"], catch_exceptions=False)
